"""What the cells of a plan would take on a GPU that is not here: counted on a pretended one, timed by its
data sheet. Forecasts are no measurements: they are told apart, and rank nothing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fovea.models import adapt
from fovea.models.cost import Costs, counted
from fovea.models.families import SIZES
from fovea.models.gpu import Gpu, Operations
from fovea.models.pretend import Device, pretend
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.cells import Cell
from fovea.study.plan.plan import Plan
from fovea.study.plan.shards import by_loading
from fovea.study.run.generate import flow

GIB = 2**30
BYTES = {8: 1.0, 4: 4.5 / 8}  # of a weight of so many bits; those of 4 have a scale of 32 for each 64


@dataclass(frozen=True)
class Parts:
    """Bytes of the text encoders, the transformer and the autoencoder; or of what is there while they run."""

    text: float
    transformer: float
    vae: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.text, self.transformer, self.vae))


@dataclass(frozen=True)
class Forecast:
    """Of one cell, per image where it is no memory.

    flops, kernels: of the method. seconds: of the method; encode, decode: of the text and of the image.
    roofline: of the method, at the GPU's peak and full bandwidth. weights: bytes, of itemsize each. running:
    bytes of tensors beside them, the most at once, of the batch. guessed: the method reads values, which a
    forecast has not: thresholds are taken as crossed, so that no step is skipped. operations: of the method,
    on the batch.
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

    @property
    def whole(self) -> float:
        """Seconds with the text encoded and the image decoded."""
        return self.seconds + self.encode + self.decode

    def memory(self, batch: int | None = None, offload: bool = False, bits: int | None = None) -> float:
        """GiB at the peak. offload: each part is on the GPU only while it runs. bits: of the weights but the
        autoencoder's, if not as they are."""
        share = (batch or self.batch) / self.batch
        less = 1.0 if bits is None else BYTES[bits] / self.itemsize
        held = Parts(self.weights.text * less, self.weights.transformer * less, self.weights.vae)
        running = [share * size for size in self.running]
        if offload:
            return max(map(sum, zip(held, running, strict=True))) / GIB
        return (sum(held) + max(running)) / GIB

    def remedies(self, room: float) -> dict[str, float]:
        """What would fit into `room` GiB, with what it takes: one change where one will do."""
        smaller = next((b for b in range(self.batch - 1, 0, -1) if self.memory(b) <= room), None)
        single = {
            "the parts on the GPU in turns (enable_model_cpu_offload)": self.memory(offload=True),
            "weights of 8 bits": self.memory(bits=8),
            "weights of 4 bits": self.memory(bits=4),
        }
        if smaller:
            single = {f"batch={smaller}": self.memory(smaller)} | single
        both = {
            f"batch=1, the parts in turns, weights of {bits} bits": self.memory(1, True, bits)
            for bits in BYTES
        }
        fitting = [{what: need for what, need in one.items() if need <= room} for one in (single, both)]
        return fitting[0] or dict([*fitting[1].items()][:1])


def forecasts(plan: Plan) -> dict[str, Forecast]:
    """By cell. The batch is the plan's; every cell of the study costs at each batch what it costs at one."""
    found: dict[str, Forecast] = {}
    for group in by_loading(plan.cells):
        with pretend() as device:
            pipe, text = built(device, instantiate(group[0].model, "model", "fovea.models"))
            with adapt(pipe) as model:
                known: dict[Any, Any] = {}
                for cell in group:
                    with counted(model.transformer, known) as costs:
                        found[cell.id] = forecast(plan, cell, model, costs, device, text)
    return found


def built(device: Device, checkpoint: Any) -> tuple[Any, float]:
    """The pipeline on the pretended device, and how much larger its text encoders are than those built."""
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


def forecast(plan: Plan, cell: Cell, model: Any, costs: Costs, device: Device, text: float) -> Forecast:
    batch = plan.samples[: plan.settings.batch]
    b, guesses, dtype = len(batch), device.guesses, model.transformer.dtype
    gpu: Gpu = plan.gpu.in_float32 if dtype == torch.float32 else plan.gpu
    ready = flow(model, cell, batch)
    encoding, first = _since(costs, Counter())
    x = instantiate(cell.method, "method", "fovea.methods")(ready)
    method, second = _since(costs, encoding)
    guessed = device.guesses > guesses
    model.decode(x, ready.grid)
    decoding, third = _since(costs, encoding + method)
    return Forecast(
        cell=cell.id,
        batch=b,
        flops=sum(op.flops * count for op, count in method.items()) / b,
        seconds=gpu.seconds(method) / b,
        encode=gpu.seconds(encoding) * text / b,
        decode=gpu.seconds(decoding) / b,
        roofline=gpu.roofline(method) / b,
        kernels=sum(method.values()) / b,
        weights=_weights(model.pipeline.pipe, text),
        itemsize=dtype.itemsize,
        running=Parts(first, second, third),
        guessed=guessed,
        operations=method,
    )


def _since(costs: Costs, before: Operations) -> tuple[Operations, int]:
    """What ran since, and the most memory that it took; the next counts from here."""
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
