"""Where caches are, by the XDG base directory specification."""

from pathlib import Path

import pytest

from fovea.eval import caches


@pytest.mark.parametrize(
    ("given", "home"), [("", "~/.cache"), ("cache", "~/.cache"), ("/somewhere", "/somewhere")]
)
def test_an_empty_or_relative_variable_is_none(given, home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert caches.home() == Path(home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.home() == Path("~/.cache")
