"""Reference features: kept with what they were made from, and refused where they do not fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fovea.eval import Unavailable
from fovea.eval.encoder import Encoder, Parts
from fovea.eval.facts import Facts
from fovea.eval.features import computed, contents, header, of_file, save
from fovea.eval.pictures import folder as pictures_in
from fovea.eval.reference import Reference, distance_score


def extractor(**identity):
    """Three features of an image: its mean colour."""
    parts = Parts(lambda x: {"colour": x.mean((2, 3))}, lambda image: image[:, :8, :8].float())
    return Encoder(
        lambda: parts,
        {"network": "colour", "weights": "none", "resize": "crop"} | identity,
        "cpu",
        batch=4,
    )


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "below").mkdir(parents=True)
    for name in ("0.png", "1.PNG", "below/2.png", "3.webp", "4.png"):
        picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        picture.save(tmp_path / "images" / name, lossless=True)
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


@pytest.fixture
def file(folder, tmp_path):
    out = tmp_path / "kept" / "reference.safetensors"
    save(computed(extractor(), pictures_in(folder).pictures, provenance={"source": "images"}), out)
    return out


FACTS = Facts("x", "lower", "distance", biased=True)
JUDGED = 24, 32


def test_a_file_says_what_it_was_made_from(file):
    found = header(file)
    assert (found["count"], found["resolution"], found["source"]) == (5, [24, 32], "images")
    assert (found["network"], found["resize"]) == ("colour", "crop")
    assert {"torch", "pillow", "numpy"} == set(found["versions"])
    assert len(found["images"]) == 64


def test_a_folder_and_its_file_are_the_same_reference(folder, file, tmp_path):
    kept = Reference(file).known(extractor(), JUDGED).features["colour"]
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        known = Reference(folder, count=5, cache=cache).known(extractor(), JUDGED)
        assert torch.equal(known.features["colour"], kept)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


def test_a_folder_is_known_by_its_contents(folder, tmp_path):
    reference = Reference(folder, cache=tmp_path / "cache")
    before = reference.known(extractor(), JUDGED)
    (folder / "0.png").rename(folder / "renamed.png")
    assert reference.known(extractor(), JUDGED).made_from["images"] == before.made_from["images"]
    Image.new("RGB", (32, 24)).save(folder / "4.png")
    assert not torch.equal(reference.known(extractor(), JUDGED).features["colour"], before.features["colour"])
    assert reference.known(extractor(resize="other"), JUDGED).made_from["resize"] == "other"
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_files_are_read_again_only_if_one_has_changed(folder, monkeypatch):
    files = sorted(folder.glob("*.png"))
    before = contents(files)
    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "read_bytes", lambda file: pytest.fail(f"{file} is read again"))
        assert contents(files) == before
    files[0].write_bytes(files[1].read_bytes())
    assert contents(files) != before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"resize": "clean"}, "made with resize=crop, not clean"),
        ({"weights": "abc"}, "made with weights=none, not abc"),
        ({"network": "other"}, "made with network=colour, not other"),
    ],
)
def test_features_of_another_kind_are_refused(file, changes, says):
    for ask in (lambda r, e: r.check(lambda: e), lambda r, e: r.known(e, JUDGED)):
        with pytest.raises(Unavailable, match=says) as found:
            ask(Reference(file), extractor(**changes))
        assert "scripts.reference_stats" in found.value.remedy


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_another_count_or_resolution_is_refused(kind, request):
    reference = Reference(request.getfixturevalue(kind), cache=None)
    with pytest.raises(Unavailable, match=r"5 images in .*, not 6"):
        replace(reference, count=6).check(extractor)
    with pytest.raises(Unavailable, match="are 24 x 32, those to be judged 48 x 64"):
        reference.known(extractor(), (48, 64))
    larger = 48, 64
    assert len(replace(reference, size="any", count=5).known(extractor(), larger).features["colour"]) == 5


def test_images_of_several_sizes_have_no_resolution(folder):
    Image.new("RGB", (32, 32)).save(folder / "5.png")
    with pytest.raises(Unavailable, match="of several sizes"):
        Reference(folder, cache=None).known(extractor(), JUDGED)
    assert (
        Reference(folder, size="any", cache=None).known(extractor(), JUDGED).made_from["resolution"] is None
    )


def test_what_is_no_reference_is_refused_with_the_way_out(tmp_path, file):
    tensors = load_file(file)
    save_file(tensors, tmp_path / "bare.safetensors")
    save_file({k: x[:4].contiguous() for k, x in tensors.items()}, file, {"made_from": '{"count": 5}'})
    (tmp_path / "text.safetensors").write_text("not a tensor")
    for path, says in (
        (None, "no reference images are given"),
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "text.safetensors" / "x", "no such folder"),
        (tmp_path / "nowhere.safetensors", "not a file of reference features"),
        (tmp_path / "bare.safetensors", "not a file of reference features"),
        (tmp_path / "text.safetensors", "not a file of reference features"),
        (file, r"says count=5 and has \[4\] rows"),
    ):
        with pytest.raises(Unavailable, match=says):
            Reference(path).check(extractor)


def test_features_that_cannot_be_compared_are_refused_before_any_image(tmp_path, file):
    given = {"colour": torch.rand(5, 3)}
    wrong = {
        "nan": ({"colour": given["colour"] * float("nan")}, {}, "colour holds NaN or infinite"),
        "named": ({"other": given["colour"]}, {}, r"named\.safetensors holds other, not colour"),
        "flat": ({"colour": torch.rand(5)}, {}, r"of shape \(5,\), not one row per image"),
        "unsized": (given, {"resolution"}, "does not say the resolution"),
    }
    made_from = header(file)
    for name, (tensors, left_out, says) in wrong.items():
        kept = {key: value for key, value in made_from.items() if key not in left_out}
        save_file(tensors, path := tmp_path / f"{name}.safetensors", {"made_from": json.dumps(kept)})
        with pytest.raises(Unavailable, match=says):
            Reference(path).check(extractor, "colour")
    save_file(given, path := tmp_path / "list.safetensors", {"made_from": "[1]"})
    with pytest.raises(Unavailable, match="not a file of reference features"):
        Reference(path).check(extractor)


def test_damaged_features_of_the_cache_are_computed_again(folder, tmp_path):
    reference = Reference(folder, cache=tmp_path / "cache")
    before = reference.known(extractor(), JUDGED).features["colour"]
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-8])
    of_file.cache_clear()
    assert torch.equal(reference.known(extractor(), JUDGED).features["colour"], before)


def test_features_do_not_depend_on_batch_or_order(folder):
    files = pictures_in(folder).pictures
    assert [file.name for file in files] == ["0.png", "1.PNG", "3.webp", "4.png", "2.png"]
    forwards = computed(extractor(), files)
    backwards = computed(extractor(), files[::-1])
    assert torch.equal(forwards.features["colour"], backwards.features["colour"].flip(0))
    assert forwards.made_from == backwards.made_from


def test_a_score_is_the_mean_of_what_images_add():
    mine, dense = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 4.0])
    score = distance_score("x", FACTS, lambda f: f.double().numpy(), mine, dense, prompts="abc")
    assert (score.value, score.n, score.per_image) == (3.0, 3, (1.0, 2.0, 6.0))
    assert score.se == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)
    assert score.difference.value == 1
    one = distance_score("x", FACTS, lambda f: f.double().numpy(), mine, dense, prompts="aaa")
    assert (one.value, one.se, one.difference.level) == (3.0, None, 0.0)
    with pytest.raises(Unavailable, match="one image"):
        distance_score("x", FACTS, lambda f: f.numpy(), mine[:1], None, prompts="a")
