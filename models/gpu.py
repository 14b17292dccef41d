"""A GPU's data sheet, and the minimum time that operations take on it by the roofline model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class Operation(NamedTuple):
    """One kernel: its FLOPs, 2 per multiply-add, and the bytes it reads and writes in memory."""

    flops: int
    bytes: int


Operations = Counter[Operation]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Gpu:
    """A GPU by its data sheet, with the efficiency that kernels reach on it.

    name: display name.
    tflops: peak of dense bfloat16 with float32 accumulation, TFLOP/s.
    float32: peak of float32 without tensor cores (torch's default), TFLOP/s.
    memory: GiB.
    bandwidth: memory bandwidth, GB/s.
    source: source of these numbers.
    compute, traffic: fraction of peak and of bandwidth that kernels reach.
    launch: overhead per kernel, microseconds.
    reserve: GiB not available for tensors: driver context, library workspaces and allocator fragmentation.

    The pure roofline model (doi:10.1145/1498765.1498785) has compute = traffic = 1 and launch = 0.
    """

    name: str
    tflops: Positive
    float32: Positive
    memory: Positive
    bandwidth: Positive
    source: str
    compute: Share = 0.6
    traffic: Share = 0.8
    launch: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    reserve: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.5

    @property
    def in_float32(self) -> "Gpu":
        return replace(self, tflops=self.float32)

    def seconds(self, operations: Mapping[Operation, int]) -> float:
        """Time of kernels in sequence, each bound by compute or memory traffic."""
        flops, moved = self.tflops * 1e12 * self.compute, self.bandwidth * 1e9 * self.traffic
        each = ((max(op.flops / flops, op.bytes / moved), count) for op, count in operations.items())
        return sum((busy + self.launch * 1e-6) * count for busy, count in each)

    def roofline(self, operations: Mapping[Operation, int]) -> float:
        """Time in seconds at peak and full bandwidth, without launch overhead."""
        flops, moved = self.tflops * 1e12, self.bandwidth * 1e9
        return sum(max(op.flops / flops, op.bytes / moved) * count for op, count in operations.items())
