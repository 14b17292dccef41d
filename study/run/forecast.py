"""Forecast what the cells of a plan would take on a GPU that is not present: operations are counted on a
simulated device and timed from the GPU's data sheet. Forecasts are not measurements; they are labelled as
such and never ranked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import inf
from typing import Any, NamedTuple

import torch
from torch import nn

from fovea.models import adapt
from fovea.models.cost import Costs, count_costs
from fovea.models.families import SIZES
from fovea.models.gpu import Gpu, Operation, Operations
from fovea.models.pretend import Device, pretend
from fovea.models.quantize import KINDS
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan, by_loading
from fovea.study.run.generate import flow

GIB = 2**30
SKIPS_NOTHING = {"threshold": 1e-6, "similarity": 1.0}  # where any value exceeds a threshold
SKIPS_ALL = {"threshold": inf, "similarity": -1.0}
SUGGESTED = ("int8", "nf4")  # quantisation to 8 bits and to 4 bits


class Parts(NamedTuple):
    """Bytes of the text encoders, the transformer and the autoencoder: of their weights, or of other tensors
    while each runs."""

    text: float
    transformer: float
    vae: float


@dataclass(frozen=True)
class Forecast:
    """Forecast of one cell; times, FLOPs and kernels are per image.

    flops, kernels: of the method.
    seconds: of the method.
    encode, decode: seconds of text encoding and of decoding.
    roofline: seconds of the method at the GPU's peak throughput and full bandwidth.
    weights: bytes before quantisation, with itemsize bytes per value.
    running: peak bytes of other tensors while each part runs, for the batch.
    guessed: the method depends on values, which a forecast lacks. They are assumed to be such that no step is
        skipped, whatever the threshold.
    operations: of the method, for the batch.
    linear: bytes of the transformer's linear layers.
    offload, quantize: settings of the cell's model.
    least: if guessed, the forecast where every step that may be skipped is.
    """

    cell: str
    batch: int
    flops: float
    seconds: float
    encode: float
    decode: float
    roofline: float
    kernels: float
    weights: Parts
    itemsize: int
    running: Parts
    guessed: bool
    operations: Operations = field(repr=False)
    linear: float = 0.0
    offload: str = "none"
    quantize: str = "none"
    least: "Forecast | None" = None

    @property
    def whole(self) -> float:
        """Seconds including text encoding and image decoding."""
        return self.seconds + self.encode + self.decode

    def memory(
        self, batch: int | None = None, offload: str | None = None, quantize: str | None = None
    ) -> float:
        """Return the peak memory in GiB, with the cell's own settings unless given. offload: each part
        (model) or each layer (sequential) is on the GPU only while it runs."""
        offload, quantize = offload or self.offload, quantize or self.quantize
        running = [(batch or self.batch) / self.batch * size for size in self.running]
        if offload == "sequential":
            return max(running) / GIB
        saved = 0.0 if quantize == "none" else self.linear * (1 - KINDS[quantize].bits / (8 * self.itemsize))
        held = Parts(self.weights.text, self.weights.transformer - saved, self.weights.vae)
        if offload == "model":
            return max(map(sum, zip(held, running, strict=True))) / GIB
        return (sum(held) + max(running)) / GIB

    def remedies(self, room: float) -> dict[str, float]:
        """Return changes that would fit into `room` GiB, with the memory they need: single changes if one
        suffices, else the first sufficient combination."""
        smaller = next((b for b in range(self.batch - 1, 0, -1) if self.memory(b) <= room), None)
        single = {f"batch={smaller}": self.memory(smaller)} if smaller else {}
        single["model.offload=model"] = self.memory(offload="model")
        single |= {f"model.quantize={kind}": self.memory(quantize=kind) for kind in SUGGESTED}
        most = {
            f"batch=1 model.offload=model model.quantize={kind}": self.memory(1, "model", kind)
            for kind in SUGGESTED
        }
        most["batch=1 model.offload=sequential"] = self.memory(1, "sequential", "none")
        fitting = [{what: need for what, need in one.items() if need <= room} for one in (single, most)]
        return fitting[0] or dict([*fitting[1].items()][:1])


def forecasts(plan: Plan) -> dict[str, Forecast]:
    """Return the forecast of each cell, by id, at the plan's batch size. Raises Refused for a cell that would
    raise ValueError."""
    found: dict[str, Forecast] = {}
    for group in by_loading(plan.cells):
        with pretend() as device:
            pipe, text = build(device, instantiate(group[0].model, "model", "fovea.models"))
            with adapt(pipe) as model:
                known: dict[Any, Any] = {}
                for cell in group:
                    method = instantiate(cell.method, "method", "fovea.methods")
                    own = forecast(plan, cell, method, model, known, device, text)
                    if own.guessed:
                        own, least = (
                            forecast(plan, cell, with_bounds(method, bounds), model, known, device, text)
                            for bounds in (SKIPS_NOTHING, SKIPS_ALL)
                        )
                        own = replace(own, least=least if least.flops < own.flops else None)
                    found[cell.id] = own
    return found


def with_bounds(method: Any, bounds: Mapping[str, float]) -> Any:
    """Return the method with these values of the settings that bound what it skips, where they are set."""
    values = {f.name: getattr(method, f.name) for f in fields(method)}
    changed = {name: with_bounds(value, bounds) for name, value in values.items() if is_dataclass(value)}
    set_here = {name: value for name, value in bounds.items() if values.get(name) is not None}
    return replace(method, **changed, **set_here)


def build(device: Device, checkpoint: Any) -> tuple[Any, float]:
    """Build the pipeline on the simulated device; also return the ratio of the real text encoders' size to
    the size built."""
    dtype = torch.bfloat16 if checkpoint.dtype == "auto" else getattr(torch, checkpoint.dtype)
    folder = checkpoint.folder if checkpoint.weights == "pretrained" else None
    if folder is not None:
        return device.load(folder, checkpoint.pipelines[0], dtype), 1.0
    if checkpoint.architecture is None:
        raise Refused(
            f"model.path={checkpoint.path}: its configuration is not on this machine, and model.architecture "
            f"names none; allowed: {', '.join(SIZES)}"
        )
    size = SIZES[checkpoint.architecture]
    pipe = device.build(size.architecture, dtype)
    if checkpoint.weights == "random":
        return pipe, 1.0
    small = _weights(pipe, 1.0)
    rest = size.billions[0] * 1e9 * dtype.itemsize - small.transformer - small.vae
    return pipe, max(rest / small.text, 1.0)


def forecast(
    plan: Plan, cell: Cell, method: Any, model: Any, known: dict[Any, Any], device: Device, text: float
) -> Forecast:
    batch = plan.samples[: plan.settings.batch]
    b, guesses, dtype = len(batch), device.guesses, model.transformer.dtype
    weights = _weights(model.pipeline.pipe, text)
    gpu: Gpu = plan.gpu.in_float32 if dtype == torch.float32 else plan.gpu
    with count_costs(model.transformer, known) as costs:
        with _conditioning(model.transformer, costs) as own:
            ready = flow(model, cell, batch)
        encoding, first = _drain(costs, Counter())
        try:
            x = method(ready)
        except ValueError as error:  # what only the model itself shows: its blocks, its scheduler
            raise Refused(f"{cell.label}: {error}") from None
        denoising, second = _drain(costs, encoding)
        guessed = device.guesses > guesses
        model.decode(x, ready.grid)
        decoding, third = _drain(costs, encoding + denoising)
    return Forecast(
        cell=cell.id,
        batch=b,
        flops=sum(op.flops * count for op, count in denoising.items()) / b,
        seconds=gpu.seconds(denoising) / b,
        encode=gpu.seconds(encoding + _missing(encoding - own, weights.text, text)) / b,
        decode=gpu.seconds(decoding) / b,
        roofline=gpu.roofline(denoising) / b,
        kernels=sum(denoising.values()) / b,
        weights=weights,
        itemsize=dtype.itemsize,
        running=Parts(first, second, third),
        guessed=guessed,
        operations=denoising,
        linear=_linear(model.transformer.dit),
        offload=cell.model["offload"],
        quantize=cell.model["quantize"],
    )


def _missing(encoders: Operations, weights: float, text: float) -> Operations:
    """Return what text encoders of this size run beyond the operations of those built, as one operation.

    FLOPs grow with the weights, which are read once; the number of tokens and their activations do not grow.

    weights: bytes of the real text encoders.
    text: ratio of their size to the size built.
    """
    flops = sum(op.flops * count for op, count in encoders.items())
    more = text - 1
    return Counter({Operation(round(flops * more), round(weights / text * more)): 1} if more else {})


@contextmanager
def _conditioning(transformer: Any, costs: Costs) -> Iterator[Operations]:
    """Count what the transformer itself runs on the text: unlike the text encoders, it has its full size."""
    found: Operations = Counter()
    condition = transformer.condition

    def counted(*args: Any, **kwargs: Any) -> Any:
        before = costs.operations.copy()
        out = condition(*args, **kwargs)
        found.update(costs.operations - before)
        return out

    vars(transformer)["condition"] = counted
    try:
        yield found
    finally:
        del vars(transformer)["condition"]


def _drain(costs: Costs, before: Operations) -> tuple[Operations, int]:
    """Return the operations counted since `before` and the peak memory since the last call, and reset the
    peak."""
    ran, peak = costs.operations - before, costs.peak
    costs.peak = costs.live
    return ran, peak


def _weights(pipe: Any, text: float) -> Parts:
    sizes = {
        name: sum(t.nbytes for t in [*module.parameters(), *module.buffers()])
        for name, module in pipe.components.items()
        if isinstance(module, nn.Module)
    }
    transformer, vae = sizes.pop("transformer"), sizes.pop("vae")
    return Parts(text * sum(sizes.values()), transformer, vae)


def _linear(dit: nn.Module) -> float:
    return float(sum(m.weight.nbytes for m in dit.modules() if isinstance(m, nn.Linear)))
