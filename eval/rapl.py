"""Energy of the processor packages, by the counters that Linux gives of Intel's and AMD's (RAPL)."""

from collections.abc import Mapping
from pathlib import Path

from fovea.eval import Unavailable

POWERCAP = Path("/sys/class/powercap")


def counters(folder: Path = POWERCAP) -> dict[Path, int]:
    """Microjoules of each package. Raises Unavailable where there are none, or only root may read them."""
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
    """Between two readings less than one turn of the counters apart (minutes), others' work included."""
    return sum((after[p] - before[p]) % _turn(p) for p in before) * 1e-6


def _turn(package: Path) -> int:
    return int((package / "max_energy_range_uj").read_text()) + 1
