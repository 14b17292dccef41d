"""The files of conf/: the groups of options that a command line may name."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
NESTED = {"cache": "method/cache"}  # groups inside a group, by the name that the command line knows
SHORT = {folder: name for name, folder in NESTED.items()}
OPTIONAL = (*NESTED, "experiment", "on")  # groups that may be null
NAMED = {"prompt", "paper"}  # no choices: named by prompts=... and by an experiment


def options(group: str) -> list[str]:
    """The names that `group=NAME` accepts: the files of conf/group."""
    return sorted(path.stem for path in (CONF / NESTED.get(group, group)).glob("*.yaml"))


def groups() -> list[str]:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - NAMED
    return sorted([*folders, *NESTED])


def suite(name: str) -> list[str]:
    """The metrics of a file of conf/eval."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "eval" / f"{name}.yaml"))
    return next(item["override /metric"] for item in node["defaults"] if "override /metric" in item)
