"""`python run.py ...` in a checkout: the same as `python -m fovea ...`."""

import sys

from fovea.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
