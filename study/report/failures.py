"""What went wrong in a study, with what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from fovea.study.analysis.row import Row
from fovea.study.plan.plan import Plan
from fovea.study.store import Store


@dataclass(frozen=True)
class Failure:
    """made: images of the cell that are there all the same, of those planned; a later run may have made up
    for the failure. traceback: empty where nothing was raised."""

    label: str
    message: str
    traceback: str
    time: str
    made: str
    overcome: bool


def failures(plan: Plan, store: Store, rows: Sequence[Row]) -> list[Failure]:
    """Every one, in the order of the table; of a cell that fails by its rows, such as a no-op, that one."""
    found = []
    for row in rows:
        noted = store.samples(row.cell.id).failures
        made, whole = f"{row.n} of {row.planned}", row.n == row.planned
        found += [
            Failure(
                row.cell.label,
                f"{f.type}: {f.message}",
                f.traceback,
                f.time,
                made,
                whole,
            )
            for f in noted
        ]
        if row.failure and (whole or not noted):
            found.append(Failure(row.cell.label, row.failure, "", "", made, False))
    return found
