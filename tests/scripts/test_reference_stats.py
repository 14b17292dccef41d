"""Reference features from a folder or from COCO's annotations, and what the file says of itself."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.eval.encoder import Encoder, Parts
from fovea.eval.features import header
from scripts import reference_stats
from scripts.reference_stats import CONF, annotated, chosen, main, squared


def small(metric, changes):
    identity = {"metric": metric, "changes": changes}
    parts = Parts(lambda x: {"pool": x.mean((2, 3))}, lambda x: x[:, :8, :8].float())
    return Encoder(lambda: parts, identity, "cpu", 2)


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.setattr(reference_stats, "source", small)
    folder = tmp_path / "val2014"
    folder.mkdir()
    for i, size in ((9, (40, 30)), (2, (30, 40)), (5, (24, 24))):
        colour = np.full((*size[::-1], 3), i, np.uint8)
        Image.fromarray(colour).save(folder / f"COCO_val2014_{i:012d}.png")
    Image.new("L", (30, 30), 77).save(folder / "grey.png")
    return folder


@pytest.fixture
def annotations(tmp_path):
    listed = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.png"} for i in (9, 2, 5)]
    file = tmp_path / "captions_val2014.json"
    file.write_text(json.dumps({"images": listed, "annotations": []}))
    return file


def test_of_a_folder(images, tmp_path, capsys):
    out = tmp_path / "out" / "folder.safetensors"
    main(["fid", "--images", str(images), "--out", str(out), "inception.batch=2"])
    found = header(out)
    assert json.loads(capsys.readouterr().out) == found
    assert (found["count"], found["resolution"], found["source"]) == (4, None, "val2014")
    assert (found["metric"], found["changes"]) == ("fid", ["inception.batch=2"])


def test_of_coco_at_one_resolution(images, annotations, tmp_path):
    from safetensors.torch import load_file

    out = tmp_path / "coco.safetensors"
    where = ["--images", str(images), "--annotations", str(annotations), "--out", str(out)]
    main(["sfid", *where, "--side", "16"])
    found = header(out)
    assert (found["count"], found["resolution"], found["side"]) == (3, [16, 16], 16)
    assert len(found["annotations"]) == 64
    by_id = torch.tensor([2.0, 5.0, 9.0])[:, None].expand(3, 3)
    assert torch.equal(load_file(out)["pool"], by_id)
    main(["sfid", *where, "--count", "2", "--seed", "1"])
    assert header(out)["drawn"] == {"of": 3, "seed": 1}
    assert header(out)["count"] == 2


def test_images_that_are_not_there_are_named(images, annotations):
    (images / "COCO_val2014_000000000005.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images are not there, such as .*5\.png"):
        annotated(annotations, images)


def test_a_draw_is_by_seed_and_in_order():
    files = [CONF / f"{i:03d}" for i in range(50)]
    assert chosen(files, None, 0) == files
    assert chosen(files, 20, 0) == sorted(chosen(files, 20, 0)) != chosen(files, 20, 1)
    assert len(set(chosen(files, 20, 0))) == 20
    with pytest.raises(ValueError, match="--count 51 of 50 images"):
        chosen(files, 51, 0)


def test_the_central_square_is_taken_and_resized(tmp_path):
    columns = np.zeros((10, 30, 3), np.uint8)
    columns[:, 10:20] = 200
    Image.fromarray(columns).save(tmp_path / "wide.png")
    picture = squared(Image.open(tmp_path / "wide.png"), 20)
    assert picture.size == (20, 20)
    assert np.array_equal(np.asarray(picture), np.full((20, 20, 3), 200))


def test_only_metrics_with_a_reference_are_offered(capsys):
    with pytest.raises(SystemExit):
        main(["psnr", "--images", ".", "--out", "x"])
    assert "'fid', 'fid_adm'" in capsys.readouterr().err
