"""A GPU that is not there: full-size pipelines whose tensors have device, dtype and shape but no values.

    with pretend() as gpu:
        pipe = gpu.build(SIZES["flux"].architecture)
        with adapt(pipe) as model:
            ...                          # model.flow, a method's call, flow.decode: as on a GPU
    gpu.waits                            # where the host would have waited for the device

torch's FakeTensorMode stands in for the device; what runs on the CPU (schedules, generators, noise) is
computed normally. Nothing is allocated, so 12 billion parameters fit anywhere.
"""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from fovea.models.family import Architecture
from fovea.models.folder import component_classes, read
from fovea.models.random_weights import TOKENIZERS, component

SMALL = 4096  # maximum entries of tensors whose values are tracked: noise levels, times
aten = torch.ops.aten
DATA_DEPENDENT = {aten.nonzero.default}
CONSTANT = {aten.zeros, aten.ones, aten.full, aten.arange, aten.linspace, aten.scalar_tensor}
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Wait:
    """The host waits for the device: to read a result, or to copy pageable memory to it.

    where: file and line of the caller.
    """

    what: Literal["read", "copy"]
    where: str


class Device(TorchDispatchMode):
    """Dispatches operations on the pretended device; operations on the CPU alone run for real.

    waits: synchronisations, in order.
    flops: FLOPs so far, by torch's formulas, as its own FlopCounterMode counts in a third more time.

    A value read by the host is correct if it derives from CPU values (noise levels). Otherwise a number reads
    as 0.5, so that a threshold sees a change.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake, self.waits, self.flops = fake, list[Wait](), 0
        self.guesses = 0  # numbers read by the host whose value is not known
        self._busy = False  # whether anything ran since the last wait
        self._values = WeakTensorKeyDictionary()  # small device tensors -> their values on the CPU

    def build(self, architecture: Architecture, dtype: torch.dtype = torch.bfloat16) -> Any:
        """Build the pipeline with its modules on the device."""
        parts = dict(architecture)
        pipeline, extra = parts.pop("pipeline")
        components: dict[str, Any] = {}
        for name, (kind, config) in parts.items():
            if kind in TOKENIZERS or kind.endswith("Scheduler"):
                with self.off():
                    components[name] = component(kind, config, "cpu", dtype)
            else:
                components[name] = component(kind, config, "cuda", dtype)
        pipe = getattr(diffusers, pipeline)(**components, **extra)
        pipe.random_weights = True
        return pipe

    def load(self, folder: Path, pipeline: str, dtype: torch.dtype = torch.bfloat16) -> Any:
        """Build the pipeline of a diffusers folder without reading weights."""
        index = read(folder / "model_index.json")
        kinds, components = component_classes(index), dict[str, Any]()
        for name, value in index.items():
            if name.startswith("_"):
                continue
            kind = kinds.get(name)
            if kind is None:
                components[name] = None if name in kinds else value
            elif "Tokenizer" in kind:
                with self.off():
                    components[name] = getattr(transformers, kind).from_pretrained(folder / name)
            else:
                scheduler = kind.endswith("Scheduler")
                config = read(folder / name / ("scheduler_config.json" if scheduler else "config.json"))
                config = {key: value for key, value in config.items() if not key.startswith("_")}
                with self.off() if scheduler else nullcontext():
                    components[name] = component(kind, config, "cpu" if scheduler else "cuda", dtype)
        return getattr(diffusers, pipeline)(**components)

    @contextmanager
    def off(self) -> Iterator[None]:
        with _disable_current_modes():
            yield

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        kwargs = kwargs or {}
        if func is aten.index.Tensor:
            args = args[0], self._mask_indices(args[1])
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        fakes = [t for t in tensors if isinstance(t, FakeTensor)]
        target = kwargs.get("device")
        on_device = target is not None and torch.device(target).type == "cuda"
        if not fakes and not on_device:
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            return self._read_scalar(fakes[0])
        if fakes and target is not None and not on_device:
            return self._copy_to_cpu(func, args, kwargs)
        if (on_device and tensors and not fakes) or (
            func is aten.copy_.default and len(fakes) < len(tensors)
        ):
            self._record_wait("copy")
        if func in DATA_DEPENDENT and self._is_known(func, tensors):
            self._record_wait("read")
            true = self._true_value(func, args, kwargs)
            out = torch.empty(true.shape, dtype=true.dtype, device="cuda")
        else:
            out = func(*args, **kwargs)
            small = all(t.numel() <= SMALL for t in _tensors(out))
            true = self._true_value(func, args, kwargs) if small and self._is_known(func, tensors) else None
        self._values.update(zip(_tensors(out), _tensors(true), strict=True) if true is not None else ())
        self._busy |= not func.is_view
        if counts := flop_registry.get(func.overloadpacket):
            self.flops += counts(*args, **kwargs, out_val=out)
        return out

    def _mask_indices(self, given: list[Tensor | None]) -> list[Tensor | None]:
        """Replace masks by indices, as torch does on the device; it waits for their number."""
        found: list[Tensor | None] = []
        with self:
            for index in given:
                if isinstance(index, FakeTensor) and index.dtype == torch.bool:
                    found += index.nonzero().unbind(1)
                else:
                    found.append(index)
        return found

    def _is_known(self, func: Any, tensors: list[Tensor]) -> bool:
        """True if the results can be computed from known values of the arguments."""
        if not tensors:
            return func._overloadpacket in CONSTANT
        return all(
            t in self._values or (not isinstance(t, FakeTensor) and t.numel() <= SMALL) for t in tensors
        )

    def _read_scalar(self, t: FakeTensor) -> Any:
        self._record_wait("read")
        if t in self._values:
            with unset_fake_temporarily():
                return self._values[t].item()
        self.guesses += 1
        return 0.5 if t.dtype.is_floating_point else t.dtype == torch.bool

    def _copy_to_cpu(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """Copy a tensor to the CPU, as zeros if its values are not known."""
        self._record_wait("read")
        shape = func(*args, **kwargs)
        with unset_fake_temporarily():
            if args[0] in self._values:
                return self._values[args[0]].to(shape.dtype)
            return torch.zeros(shape.shape, dtype=shape.dtype)

    def _true_value(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute the operation's value on the CPU."""

        def value(t: Tensor) -> Tensor:
            found = self._values.get(t)
            return t if found is None else found

        cpu_kwargs = {k: torch.device("cpu") if k == "device" else v for k, v in kwargs.items()}
        with unset_fake_temporarily():
            return func(*tree_map_only(Tensor, value, args), **tree_map_only(Tensor, value, cpu_kwargs))

    def _record_wait(self, what: Literal["read", "copy"]) -> None:
        """Record a wait. Reading a tensor entry by entry counts as one."""
        frames = [f for f in traceback.extract_stack() if Path(f.filename).resolve().is_relative_to(PACKAGE)]
        caller = next(f for f in reversed(frames) if f.filename != __file__)
        found = Wait(what, f"{Path(caller.filename).name}:{caller.lineno}")
        if self._busy or self.waits[-1:] != [found]:
            self.waits.append(found)
        self._busy = False


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor)]


@contextmanager
def pretend() -> Iterator[Device]:
    """Send operations on "cuda" tensors to a pretended device while the block lasts."""
    with ExitStack() as stack:
        fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Device(fake))
