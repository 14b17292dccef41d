"""A paper's table as data.

conf/experiment/NAME.csv holds the values as they are printed, a line per row of the paper's table: `cell` is
the label of this study's cell that re-runs it, `model` its model where there are several, `note` why a row is
not re-run, `version` of the paper that a row stands in where not all are in one. Digits count: .34 stands for
all from .335 to .345."""

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path

from pydantic.dataclasses import dataclass as checked

TITLE = "Printed by the paper, beside what was measured"
FOLDER = Path(__file__).resolve().parents[2] / "conf" / "experiment"


@checked(frozen=True, config={"extra": "forbid"})
class Column:
    """of: the figure measured beside a printed column, of `FIGURES` or a score; None where Fovea has none.
    times: by what a printed value is to be multiplied for our unit. over_dense: the printed value is that of
    this column over that of the dense row."""

    of: str | None = None
    times: float = 1.0
    over_dense: str | None = None


@checked(frozen=True, config={"extra": "forbid"})
class Paper:
    """protocol: what the paper did, and where this differs. source: the table and whose it is. values: its
    file in conf/experiment. columns: of the printed table, in order. remarks: on this table. needs: what a
    full run takes."""

    protocol: tuple[str, ...]
    source: str
    values: str
    columns: dict[str, Column]
    remarks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __post_init__(self):
        known = self.lines()[0].keys()
        for name, column in self.columns.items():
            if (column.over_dense or name) not in known:
                raise ValueError(f"columns.{name}: {self.values} has {', '.join(known)}")

    def lines(self) -> list[dict[str, str]]:
        """The table as it is printed. ValueError where it cannot be read."""
        try:
            with open(FOLDER / self.values, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
        except OSError as error:
            raise ValueError(f"values={self.values}: {error.strerror or error}") from None
        if not found or "cell" not in found[0]:
            raise ValueError(f"values={self.values}: needs a column `cell` and at least one line")
        return found


def rounded(text: str) -> tuple[float, float]:
    """What a printed number may have been before it was rounded. ValueError where it is none."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} in a paper's table is no number") from None
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    return float(value - half), float(value + half)
