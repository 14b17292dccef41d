"""Energy of the processor packages from Linux's RAPL counters (Intel and AMD)."""

from collections.abc import Mapping
from pathlib import Path

from fovea.eval import Unavailable

POWERCAP = Path("/sys/class/powercap")


def counters(folder: Path = POWERCAP) -> dict[Path, int]:
    """Return the counter of each package in microjoules. Raises Unavailable if none is readable."""
    packages = sorted(p for p in folder.glob("intel-rapl:*") if p.name.count(":") == 1)
    if not packages:
        raise Unavailable("this machine has no energy counter (RAPL)", "measure on one that has")
    try:
        return {p: int((p / "energy_uj").read_text()) for p in packages}
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"the energy counter cannot be read ({error})", f"as root: chmod a+r {folder}/*/energy_uj"
        ) from error


def joules(before: Mapping[Path, int], after: Mapping[Path, int]) -> float:
    """Return the energy between two readings, other processes included.

    The readings must be less than one counter overflow apart (minutes).
    """
    return sum((after[p] - before[p]) % _range(p) for p in before) * 1e-6


def _range(package: Path) -> int:
    return int((package / "max_energy_range_uj").read_text()) + 1
