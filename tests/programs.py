"""Programs that tests need and that pip does not bring."""

import os
import shutil

import pytest


def needed(*names: str) -> str:
    """The first of these that is installed. Without any the test is skipped, but where CI promises them it
    fails."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = f"none of {', '.join(names)} is installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found
