"""Painted scenes are those of their numbers, by however many processes."""

import json
import os

import numpy as np
import pytest

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
    with monkeypatch.context() as context:
        context.setattr(scenes.emoji, "paint", lambda *_: os._exit(1))
        with pytest.raises(EOFError):
            scenes.painted(tmp_path, 32, 9)
    assert np.array_equal(scenes.painted(tmp_path, 32, 7)[0], images)  # nothing is lost
    more, _ = scenes.painted(tmp_path, 32, 9)
    assert len(more) == len(json.loads((tmp_path / "captions32.json").read_text())) == 9
