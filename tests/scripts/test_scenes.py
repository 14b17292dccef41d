"""Painted scenes are those of their numbers, by however many processes."""

import json

import numpy as np

from scripts import emoji, scenes


def test_scenes_are_painted_once_and_in_order(tmp_path, drawings, monkeypatch):
    monkeypatch.setattr(scenes.drawings, "load", lambda folder: drawings)
    images, captions = scenes.painted(tmp_path, 32, 7, workers=3)
    known = [emoji.scene("train", 32, i) for i in range(7)]
    assert captions == [scene.caption for scene in known]
    assert np.array_equal(images, np.stack([emoji.paint(scene, drawings, 32) for scene in known]))
    before = (tmp_path / "scenes32.npy").stat().st_mtime_ns
    fewer, said = scenes.painted(tmp_path, 32, 5)
    assert (tmp_path / "scenes32.npy").stat().st_mtime_ns == before
    assert np.array_equal(fewer, images[:5])
    assert said == captions[:5]
    more, _ = scenes.painted(tmp_path, 32, 9)
    assert len(more) == len(json.loads((tmp_path / "captions32.json").read_text())) == 9
