"""The command line of scripts that make one table of several stored studies."""

import argparse
from pathlib import Path


def folder_and_name(help: str | None, name: str) -> tuple[Path, str]:
    """FOLDER and NAME: the studies are FOLDER/NAME-*, and FOLDER/NAME is where the table goes."""
    parser = argparse.ArgumentParser(description=help, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results/embedded"))
    parser.add_argument("name", nargs="?", default=name)
    given = parser.parse_args()
    return given.folder, given.name
