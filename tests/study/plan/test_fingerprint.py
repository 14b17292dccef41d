"""What the hash of a cell's source follows, and what it does not."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

import fovea.source
from fovea.models.families import FAMILIES
from fovea.study.plan import fingerprint
from fovea.study.plan.fingerprint import ROOT, code

MODEL = {"family": "lumina", "weights": "pretrained"}
RAS = {"_target_": "fovea.methods.RAS", "cache": None}
CACHED = {"_target_": "fovea.methods.Caching", "cache": {"_target_": "fovea.methods.caches.FORA"}}
PARSED = {}  # a file of one name and text is parsed once for all tests
TOUCH = {
    "eval/speed.py": True,
    "eval/telemetry.py": True,
    "study/run/generate.py": True,
    "models/lumina.py": True,
    "models/flow.py": True,
    "models/transformer.py": True,
    "models/sampling.py": True,
    "methods/ras.py": True,
    "methods/tokens.py": True,
    "models/sd3.py": False,
    "models/checkpoint.py": False,
    "models/random_weights.py": False,
    "methods/ralu.py": False,
    "methods/caches/fora.py": False,
    "eval/fid.py": False,
    "eval/interval.py": False,
    "study/store.py": False,
    "study/plan/cells.py": False,
    "study/config/compose.py": False,
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the source to be changed."""
    for folder in ("models", "methods", "eval", "study"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=lambda _, names: {"__pycache__"} & set(names)
        )
    monkeypatch.setattr(fovea.source, "HERE", tmp_path)
    for name in ("imported", "syntax"):
        parse = once_per_text(getattr(fovea.source, name).__wrapped__)
        for module in (fovea.source, fingerprint):
            monkeypatch.setattr(module, name, parse)
    forget()
    yield tmp_path
    forget()


def once_per_text(parse):
    def parsed(file):
        key = parse, file.name, file.read_text()
        if key not in PARSED:
            PARSED[key] = parse(file)
        return PARSED[key]

    return parsed


def forget():
    fingerprint._code.cache_clear()


def changed(file, text, node=RAS, model=MODEL):
    """Whether a line more changes the hash."""
    before, kept = code(model, node), file.read_text()
    file.write_text(kept + text)
    forget()
    after = code(model, node)
    file.write_text(kept)
    forget()
    return before != after


@pytest.mark.parametrize("name", TOUCH)
def test_what_touches_a_number_is_followed_and_nothing_else(source, name):
    assert changed(source / name, "\nNEW = 1\n") is TOUCH[name]
    assert not changed(source / name, "\n# a comment\n")


def test_a_cache_is_part_of_the_method(source):
    assert changed(source / "methods/caches/fora.py", "\nNEW = 1\n", CACHED)
    assert not changed(source / "methods/ras.py", "\nNEW = 1\n", CACHED)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_told_by_its_file_and_by_those_that_it_is_built_on(source, family):
    model = {"family": family, "weights": "random"}
    built_on = {"flux2": {"flux"}, "flux2_klein": {"flux2", "flux"}}.get(family, set())
    for other in FAMILIES:
        touches = other in {family} | built_on
        assert changed(source / f"models/{other}.py", "\nNEW = 1\n", RAS, model) is touches


def test_docstrings_touch_no_number(source):
    file = source / "methods" / "ras.py"
    before = code(MODEL, RAS)
    file.write_text(file.read_text().replace('"""Region-adaptive sampling', '"""Sampling'))
    forget()
    assert code(MODEL, RAS) == before


def test_no_tensor_of_a_large_file_changes_unseen(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "SMALL", 1000)
    monkeypatch.setattr(fingerprint, "BLOCK", 16)
    tensors = {str(i): np.zeros(500, np.uint8) for i in range(100)}
    save_file(tensors, tmp_path / "same.safetensors")
    hashes = {}
    for name in ("none", "none either", *tensors):
        file = tmp_path / f"{name}.safetensors"
        save_file(tensors | ({name: np.ones(500, np.uint8)} if name in tensors else {}), file)
        hashes[name] = fingerprint._contents(file, file.stat().st_size)
    assert hashes["none"] == hashes["none either"]
    assert len(set(hashes.values())) == 1 + len(tensors)


def header(text):
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "start",
    [
        *(b"\xff" * 8, b"PK", b""),
        header(b"[[[[["),
        header(b'{"x": {"data_offsets": [1]}}'),
        header(b'{"x": {"data_offsets": "ab"}}'),
        header(b'{"x": {"data_offsets": [-900, -900]}}'),
        header(b'{"x": {"data_offsets": [900, 900]}}'),
    ],
)
def test_a_large_file_that_is_no_safetensors_has_no_tensors(tmp_path, start):
    file = tmp_path / "x.bin"
    file.write_bytes(start)
    with open(file, "rb") as stream:
        assert fingerprint._middles(stream, len(start)) == []


def test_random_weights_are_of_their_architecture(source):
    assert code(MODEL, RAS) != code(MODEL | {"weights": "random"}, RAS)
