"""DiCache: the first blocks decide whether the others run, and align what stands in for them
(arXiv:2508.17356)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.cache import Cache
from fovea.models.blockwise import Evaluation
from fovea.models.hidden import Hidden

Residuals = tuple[Hidden, Hidden]  # of all blocks, and of the probe


@dataclass(frozen=True, config={"extra": "forbid"})
class DiCache(Cache):
    """The first blocks run at every step as a probe. While the sum of its relative L1 changes since the other
    blocks last ran is below the threshold, those are skipped, and the residual of all blocks is extrapolated
    along the line through its last two values, as far as the probe's residual has gone. Each image decides
    for itself. The last step always runs.

    threshold: bound on the sum of changes.
    probe: number of first blocks that always run, m in the paper.
    retention: share of the steps, from the first, that run in full; the step on its border, too.
    error: the change of the "probe" from step to step, or its distance from the change of the blocks' input
        ("beyond_input"), for which the authors take a threshold of 0.08 and no retention.
    align: False to add the last residual as it is.
    reach: limits of how far beyond the last residual but one the line is followed, in units of the distance
        from there to the last.
    """

    threshold: Annotated[float, Field(ge=0)] = 0.4
    probe: Annotated[int, Field(ge=1)] = 1
    retention: Annotated[float, Field(ge=0, le=1)] = 0.2
    error: Literal["probe", "beyond_input"] = "probe"
    align: bool = True
    reach: tuple[float, float] = (1.0, 1.5)

    off: ClassVar = {"threshold": 0.0}

    def __post_init__(self):
        if not 0 <= self.reach[0] <= self.reach[1] < float("inf"):
            raise ValueError(f"reach={self.reach}: must be two numbers of at least 0 in ascending order")

    def always_runs(self, step: int, steps: int) -> bool:
        """True for the steps at which nothing is decided."""
        return step <= int(self.retention * steps + 1e-9) or step >= steps - 1

    def saves(self, steps):
        return not all(self.always_runs(step, steps) for step in range(steps))

    def start(self, flow, steps):
        error = [0.0] * len(flow.generators)
        inputs = probes = None  # of the step before
        history: list[Residuals] = []  # the last two, oldest first

        def velocity(step, x, sigma, encodings=None):
            nonlocal error, inputs, probes, history
            e = flow.prepare(x, sigma, encodings)
            self.check_blocks(e.blocks)
            h = e.run(e.hidden, 0, self.probe)
            must_run = [True] * len(error)
            if not self.always_runs(step, steps):
                change = self.change(e, (inputs, e.hidden), (probes, h))
                error = [total + c for total, c in zip(error, change, strict=True)]
                must_run = [not total < self.threshold or not self.threshold for total in error]
                flow.compared.append(error)
            error = [0.0 if ran else total for total, ran in zip(error, must_run, strict=True)]
            inputs, probes, probe = e.hidden, h, h - e.hidden
            stand_in = h if all(must_run) else e.hidden + self.residual(e, history, probe)
            h = e.run_due(h, stand_in, must_run, self.probe)
            now = h - e.hidden, probe
            older, newer = history or (now, now)
            history = [merged(e, older, newer, must_run), merged(e, newer, now, must_run)]
            return e.velocity(h)

        return velocity

    def change(self, e: Evaluation, inputs: tuple[Any, Any], probes: tuple[Any, Any]) -> list[float]:
        """Return the error that a step adds, per image; each pair is (of the step before, now).

        Synchronises with the device once.
        """
        of_input, of_probe = (
            e.magnitude(e.compared(now - before)) / e.magnitude(e.compared(before))
            for before, now in (inputs, probes)
        )
        return (of_probe if self.error == "probe" else (of_probe - of_input).abs()).tolist()

    def residual(self, e: Evaluation, history: list[Residuals], probe: Hidden) -> Hidden:
        """Return the residual of all blocks that the probe's residual tells."""
        (older, older_probe), (newer, newer_probe) = history
        if not self.align:
            return newer
        far, near = (e.magnitude(e.compared(r - older_probe)) for r in (probe, newer_probe))  # (b,)
        gamma = torch.where(near > 0, far / near, 1.0).clamp(*self.reach)  # 0 after one evaluation
        return older + (newer - older).scale(gamma.repeat(len(older.image) // e.b))

    def check_blocks(self, blocks: int) -> None:
        """Raise ValueError if the probe leaves no block of the model."""
        if self.probe >= blocks:
            raise ValueError(f"probe={self.probe}: must be less than the model's {blocks} blocks")


def merged(e: Evaluation, old: Residuals, new: Residuals, ran: Sequence[bool]) -> Residuals:
    """Return `new` for the images whose blocks ran and `old` for the others."""
    return e.merge(old[0], new[0], ran), e.merge(old[1], new[1], ran)
