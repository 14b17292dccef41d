"""Multistep: a linear multistep solver whose weights are fitted to the model's own dense runs."""

from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from fovea.methods.bases import weighted_sum
from fovea.methods.tokens import euler_step

Row = tuple[float, ...]


@dataclass(frozen=True, config={"extra": "forbid"})
class Multistep:
    """Fovea's own method: a few evaluations, and from each one jump to the next along the dense trajectory.

    The velocity of jump j is the weighted sum sum_i w_ji v_i of all velocities evaluated so far. The weights
    are those that lead nearest to the states of the dense run at the end of each jump, by least squares on
    a few prompts, one jump after another (`python -m scripts.calibrate`): a jump also corrects what the
    jumps before it missed. Bespoke solvers (arXiv:2310.19075, arXiv:2403.01329) have the same form and find
    weights and times by gradient descent. Adams-Bashforth is the special case of exact polynomials.

    nodes: steps that evaluate the model, of a run of `of` steps, 0 first. () evaluates every step: the
        baseline.
    weights: row j holds the weights of the j + 1 velocities evaluated so far, oldest first.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    nodes: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    of: Annotated[int, Field(ge=1)] | None = None
    weights: tuple[Row, ...] | None = None

    off: ClassVar[dict[str, Any]] = {"nodes": ()}

    def __post_init__(self):
        if self.nodes == ():
            return
        if self.nodes is None or self.of is None or self.weights is None:
            raise ValueError(
                f"nodes={self.nodes}, of={self.of}: nodes and weights are fitted to a model, and this one "
                "has none; `python -m scripts.calibrate model=NAME` prints what to put into its file"
            )
        if self.nodes[0] != 0 or list(self.nodes) != sorted({*self.nodes}) or self.nodes[-1] >= self.of:
            raise ValueError(f"nodes={list(self.nodes)}: must ascend from 0 and be less than of={self.of}")
        if [len(row) for row in self.weights] != [j + 1 for j in range(len(self.nodes))]:
            raise ValueError(f"weights: must be {len(self.nodes)} rows of 1, 2, ... weights, one row a node")
        if self.steps is not None:
            self.check_steps(self.steps)

    def check(self, grid: tuple[int, int], steps: int) -> None:
        """Raise ValueError if the weights are fitted to runs of another number of steps."""
        self.check_steps(steps)

    def check_steps(self, steps: int) -> None:
        """Raise ValueError if the weights are fitted to runs of another number of steps."""
        if self.nodes and steps != self.of:
            raise ValueError(f"steps={steps}: the weights are fitted to runs of {self.of} steps")

    @torch.no_grad()
    def __call__(self, flow, on_step=None):
        x, sigmas, velocities = flow.noise(), flow.sigmas(self.steps), []
        self.check_steps(len(sigmas) - 1)
        weights = dict(zip(self.nodes or (), self.weights or (), strict=False))  # empty if switched off
        none = torch.empty(len(x), 0, dtype=torch.long, device=x.device)
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            rows = None if not weights or i in weights else none
            if rows is None:
                v = flow.velocity(x, s)
                if weights:
                    velocities.append((v,))
                    (v,) = weighted_sum(weights[i], velocities)
            x = euler_step(x, v, s_next - s)
            if on_step:
                on_step(i=i, sigma=s, x=x, v=v, rows=rows)
        return x
