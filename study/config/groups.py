"""The option groups of conf/ that a command line may name."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
NESTED = {"cache": "method/cache"}  # command-line name of a group inside another group
SHORT = {folder: name for name, folder in NESTED.items()}
OPTIONAL = (*NESTED, "experiment", "on")  # groups that may be null
NAMED = {"prompt", "paper"}  # folders that are not groups: used by prompts=... and by experiments


def options(group: str) -> list[str]:
    """Return the names that `group=NAME` accepts: the files of conf/group."""
    return sorted(path.stem for path in (CONF / NESTED.get(group, group)).glob("*.yaml"))


def groups() -> list[str]:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()} - NAMED
    return sorted([*folders, *NESTED])


def read_option(group: str, name: str) -> dict[str, Any]:
    """Return a file of conf/ as plain data, with its defaults list and with ${...} unresolved."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / NESTED.get(group, group) / f"{name}.yaml"))
    return node


def suite(name: str) -> list[str]:
    """Return the metrics of a file of conf/eval."""
    defaults = read_option("eval", name)["defaults"]
    return next(item["override /metric"] for item in defaults if "override /metric" in item)
