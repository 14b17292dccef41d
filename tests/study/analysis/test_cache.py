"""What metrics found is kept beside the images: computed once, told apart, and never trusted when broken."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fovea.eval import Samples, backbone
from fovea.eval.clipscore import CLIPScore
from fovea.eval.fidelity import PSNR, SSIM
from fovea.eval.frechet import FrechetDistance
from fovea.eval.samples import computed_by
from fovea.eval.selftest import fault, needed
from fovea.study.analysis.cache import PART, CachedRows, StoredImages, cache_key
from fovea.study.picture import Damaged, png
from fovea.study.store import Store
from tests.eval.models import save_tiny
from tests.study.made_up import add

KEYS = [f"{i:012x}" for i in range(5)]


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "study")
    add(made, "dense", {key: png(pixels(i), False) for i, key in enumerate(KEYS)})
    add(made, "method", {key: png(pixels(i) // 2, False) for i, key in enumerate(KEYS)})
    return made


@pytest.fixture
def metrics(tmp_path):
    tiny = backbone.Backbone(model=f"local-dir:{save_tiny(tmp_path / 'clip')}", name="tiny", device="cpu")
    return [PSNR(), SSIM(), FrechetDistance(tiny, cache=tmp_path / "reference"), CLIPScore(tiny)]


def samples(store):
    def of(cell):
        return Samples(StoredImages(store, cell, store.samples(cell).only(KEYS)), list("abcde"), KEYS)

    return of("method").against(of("dense"))


def computations(metrics, monkeypatch):
    """How many images each metric and network looks at from now on, by class."""
    counted = {}
    for what in needed(metrics):
        kind = type(what)

        def compute(self, batch, plain=kind.compute):
            counted[type(self).__name__] = counted.get(type(self).__name__, 0) + len(batch.places)
            return plain(self, batch)

        monkeypatch.setattr(kind, "compute", compute)
    return counted


def test_scores_are_those_of_the_images_in_memory(store, metrics):
    dense = torch.from_numpy(np.stack([pixels(i) for i in range(5)])).permute(0, 3, 1, 2).contiguous()
    whole = Samples(dense // 2, list("abcde"), KEYS, dense)
    for metric in metrics:
        assert metric(samples(store)) == metric(whole)


def test_nothing_is_computed_twice(store, metrics, monkeypatch):
    with monkeypatch.context() as patch:
        counted = computations(metrics, patch)
        first = [metric(samples(store)) for metric in metrics]
        assert counted == {"PSNR": 5, "SSIM": 5, "TextEncoder": 10, "CLIPScore": 10}
    counted = computations(metrics, monkeypatch)
    monkeypatch.setattr(StoredImages, "read", lambda *_: pytest.fail("an image was read"))
    assert [metric(samples(store)) for metric in metrics] == first
    assert counted == {}


def test_no_network_is_loaded_where_nothing_is_new(store, metrics, monkeypatch):
    """Neither for the self-test, nor to say what the features depend on."""
    first = [metric(samples(store)) for metric in metrics if fault(metric) is None]
    assert len(first) == 4
    backbone.load.cache_clear()
    fault.cache_clear()
    monkeypatch.setattr(backbone, "parts", lambda *_: pytest.fail("a network was loaded"))
    assert [metric(samples(store)) for metric in metrics if fault(metric) is None] == first


def test_a_metric_that_is_added_uses_the_features_that_are_there(store, metrics, monkeypatch):
    *_, distance, score = metrics
    distance(samples(store))
    counted = computations([score], monkeypatch)
    monkeypatch.setattr(StoredImages, "read", lambda *_: pytest.fail("an image was read"))
    score(samples(store))
    assert counted == {"CLIPScore": 10}


def test_an_image_that_was_made_again_is_looked_at_again(store, monkeypatch):
    before = PSNR()(samples(store))[0].per_image
    add(store, "method", {KEYS[2]: png(pixels(77), False)}, batch="c" * 12)
    counted = computations([PSNR()], monkeypatch)
    after = PSNR()(samples(store))[0].per_image
    assert counted == {"PSNR": 1}
    assert [i for i in range(5) if before[i] != after[i]] == [2]


def test_a_torn_part_is_none(store):
    first = SSIM()(samples(store))
    (file,) = store.cell("method").glob("found/*/*.safetensors")
    file.write_bytes(file.read_bytes()[:-30])
    (file.parent / "other.safetensors").write_text("of no safetensors")
    assert SSIM()(samples(store)) == first
    assert len(load_file(file)["ids"]) == 5


def test_parts_are_written_as_the_work_goes_on(tmp_path):
    rows, names = CachedRows(tmp_path, "x"), [f"{i:032x}" for i in range(PART + 40)]
    for i in range(0, len(names), 32):
        rows.add(names[i : i + 32], {"figure": torch.arange(i, i + len(names[i : i + 32]))})
    (part,) = tmp_path.iterdir()
    assert len(load_file(part)["ids"]) == PART
    rows.keep()
    rows.keep()
    assert len(list(tmp_path.iterdir())) == 2
    again = CachedRows(tmp_path, "x")
    assert again.missing([*names, "f" * 32]) == [len(names)]
    assert again.take(names[::-1])["figure"].tensor().tolist() == [*range(len(names))][::-1]


def test_code_and_settings_tell_what_is_found_apart(metrics):
    psnr, ssim, *_ = metrics
    assert len({cache_key(what) for what in needed(metrics)}) == 4
    assert computed_by("fovea.eval.lpips") != computed_by(ssim.module) == computed_by(psnr.module)


def test_an_image_that_cannot_be_read_stops_the_search_and_is_named(store):
    file = store.image("method", KEYS[1])
    file.write_bytes(file.read_bytes()[:-20] + b"\0" * 20)
    with pytest.raises(Damaged, match=file.name):
        samples(store).compute([PSNR()])


def test_images_of_two_sizes_are_told(store):
    add(store, "method", {KEYS[3]: png(pixels(3)[:16], False)}, batch="c" * 12)
    with pytest.raises(Damaged, match=r"3\.png .*not of the size"):
        samples(store).compute([PSNR()])
