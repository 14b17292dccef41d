"""One tiny Lumina pipeline on disk, and a study of it that runs in seconds."""

from pathlib import Path

import pytest

SMALL = [
    *("model.steps=6", "model.height=64", "model.width=96", "method.start=2", "n=3", "batch=2"),
    *("sweep.grid.method.ratio=[0.5,0.25]", "sweep.curve=[0.5]"),
    "metric=[psnr,ssim]",
]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A stock pipeline of random weights that does not say so."""
    import torch

    from tests.pipelines import PIPELINES, saved

    return saved(PIPELINES["lumina"](torch.float32), tmp_path_factory.mktemp("lumina"))


@pytest.fixture(scope="session")
def prompts(tmp_path_factory) -> Path:
    """Prompts are data, whatever they hold."""
    file = tmp_path_factory.mktemp("prompts") / "hostile.txt"
    lines = ["../../x", '<script>alert("1")</script>', "$\\sum$ & 50% of a 🦊, `rm -rf`", "a fox", ""]
    file.write_text("\n".join(lines), "utf-8")
    return file


@pytest.fixture(scope="session")
def small(weights, prompts) -> list[str]:
    return [*SMALL, f"model.path={weights}", f"prompts={prompts}"]


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without figures and page, which take most of their time: for tests that look at neither."""
    from fovea.study.report import report

    for drawing in ("pareto", "draw_maps", "sheet", "page"):
        monkeypatch.setattr(report, drawing, lambda *_: None)


@pytest.fixture(scope="session")
def finished(small, tmp_path_factory) -> Path:
    """A study made without interruption."""
    import run

    results = tmp_path_factory.mktemp("results")
    assert run.main([*small, f"results={results}", "name=whole"]) == 0
    return results / "whole"
