"""`python run.py ...` in a checkout: the same as `python -m fovea ...`."""

import sys

from fovea.__main__ import main as main
from fovea.__main__ import program

if __name__ == "__main__":
    sys.exit(program())
