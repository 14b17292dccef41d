"""A study in shards, and the same by one process alone."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared(small) -> list[str]:
    """Two cells of eight images, in four shards."""
    words = [word for word in small if not word.startswith(("n=", "batch=", "sweep.", "prompts="))]
    return [*words, "n=8", "batch=1", "sweep.grid.method.ratio=[0.25]", "sweep.curve=null", "name=x"]


@pytest.fixture(scope="session")
def alone(shared, tmp_path_factory) -> Path:
    import run

    results = tmp_path_factory.mktemp("alone")
    assert run.main([*shared, f"results={results}"]) == 0
    return results / "x"
