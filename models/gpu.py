"""A GPU by its data sheet, and the least time that operations take on it: a roofline."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class Operation(NamedTuple):
    """One kernel: its FLOPs, 2 per multiply-add, and the bytes that it reads and writes in memory."""

    flops: int
    bytes: int


Operations = Counter[Operation]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Gpu:
    """name: in words. tflops: peak of dense bfloat16 with float32 sums, TFLOP/s; float32: of float32 outside
    tensor cores, torch's own choice for it. memory: GiB. bandwidth: of that memory, GB/s. source: of these.

    compute, traffic: the shares of peak and bandwidth that kernels reach. launch: microseconds that each
    kernel costs besides. reserve: GiB that hold no tensor, of the driver's context, libraries' workspace and
    the allocator's gaps. The roofline itself (doi:10.1145/1498765.1498785) has 1, 1 and 0.
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
        """Of kernels one after the other, each bound by what it computes or by what it moves."""
        flops, moved = self.tflops * 1e12 * self.compute, self.bandwidth * 1e9 * self.traffic
        each = ((max(op.flops / flops, op.bytes / moved), count) for op, count in operations.items())
        return sum((busy + self.launch * 1e-6) * count for busy, count in each)

    def roofline(self, operations: Mapping[Operation, int]) -> float:
        """Seconds at peak and full bandwidth, with launches that cost nothing."""
        flops, moved = self.tflops * 1e12, self.bandwidth * 1e9
        return sum(max(op.flops / flops, op.bytes / moved) * count for op, count in operations.items())
