"""Cost of running on a pretended GPU: kernels with their FLOPs and bytes, and memory.

    with pretend() as gpu:
        ...
        with counted(model.transformer, {}) as spent:
            x = method(flow)
        spent.operations, spent.peak

Modules of the same kind cost the same at equal shapes: each runs once per shape, and its cost is reused after
that. FLUX.1's 50 steps take seconds.
"""

import math
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from fovea.models.gpu import Operation, Operations
from fovea.models.kv import Call
from fovea.models.transformer import Transformer

aten = torch.ops.aten
UNINITIALISED = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}
READS_ROWS = {aten.index, aten.index_select, aten.gather, aten.embedding}  # read only what they select
WRITES_ROWS = {aten.index_copy_, aten.index_put_, aten.scatter_, aten.scatter_add_}
OVERWRITES = {aten.copy_, aten.fill_, aten.zero_, aten.normal_}  # do not read their first argument


class Costs(TorchDispatchMode):
    """Counts kernels and memory while active.

    operations: kernels so far, by FLOPs and bytes.
    live, peak: current and maximum bytes of tensors allocated since the start.
    """

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = device
        self.operations: Operations = Counter()
        self.live = self.peak = 0
        self._tracked: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs = _on(self.device, (args, kwargs))
        out = func(*args, **(kwargs or {}))
        outputs = _on(self.device, out)
        if not outputs and not inputs:
            return out
        before = {storage(t) for t in inputs}
        new = [t for t in outputs if storage(t) not in before]
        for tensor in new:
            self.track(tensor)
        written = any(t.numel() for t in outputs)  # torch launches nothing for empty results
        if written and (new or func._schema.is_mutable) and func.overloadpacket not in UNINITIALISED:
            counts = flop_registry.get(func.overloadpacket)
            flops = counts(*args, **(kwargs or {}), out_val=out) if counts else 0
            self.operations[Operation(flops, traffic(func.overloadpacket, inputs, outputs))] += 1
        return out

    def track(self, tensor: Tensor) -> None:
        """Count the tensor's memory until it is freed."""
        memory, address = tensor.untyped_storage(), storage(tensor)
        if address not in self._tracked:
            self._tracked.add(address)
            self.live += memory.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(memory, self._freed, address, memory.nbytes()).atexit = False

    def _freed(self, address: int, size: int) -> None:
        self._tracked.discard(address)
        self.live -= size


class FusedAttention(TorchFunctionMode):
    """Scaled dot-product attention as one fused kernel, as on a GPU, whatever backend torch would use here.

    The result has FlashAttention's layout, (b, s, heads, d), and no values.
    """

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self.costs = costs

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        q, k, v = (*args, *((kwargs or {})[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        *batch, heads, rows, width = q.shape
        out = q.new_empty(*batch, rows, heads, v.shape[-1]).transpose(-2, -3)
        flops = 2 * q.shape[:-1].numel() * k.shape[-2] * (width + v.shape[-1])
        self.costs.operations[Operation(flops, sum(map(size, (q, k, v, out))))] += 1
        return out


class TensorSpec(NamedTuple):
    """Description of a tensor without values."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)


class Recorded(NamedTuple):
    """Cost and results of a module that ran.

    peak: peak bytes beyond those allocated before.
    out: its results.
    keys: keys and values stored for the trajectory, by index of the attention module.
    """

    operations: Operations
    peak: int
    out: Any
    keys: dict[int, tuple[TensorSpec, ...]]


class Replay:
    """A module's forward that runs once per kind of module and input shapes, and is replayed after that.

    If a cache has replaced the forward of one of its `submodules`, the module always runs.
    """

    def __init__(self, module: nn.Module, call: Call, costs: Costs, recorded: dict[Any, Recorded]) -> None:
        self.forward, self.call, self.costs, self.recorded = module.forward, call, costs, recorded
        self.submodules = [*module.modules()][1:]
        self.kind = type(module), tuple((name, p.shape, p.dtype) for name, p in module.named_parameters())
        processors = (getattr(m, "processor", None) for m in module.modules())
        self.layers: list[int] = [processor.layer for processor in processors if processor is not None]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forwards = (vars(module).get("forward") for module in self.submodules)
        if any(f is not None and not isinstance(f, Replay) for f in forwards):
            return self.forward(*args, **kwargs)
        inputs, tree = tree_flatten((args, kwargs))
        kv, sparse = self.call.kv, self.call.joint is not None or self.call.image is not None
        shapes = tuple((t.shape, t.dtype) if isinstance(t, Tensor) else t for t in inputs)
        held = (
            None if kv is None else sum((self.call.pass_index, layer) in kv.layers for layer in self.layers)
        )
        key = (self.kind, tree, shapes, held, sparse)
        if key not in self.recorded:
            out, self.recorded[key] = self.record(args, kwargs)
            return out
        recorded, device = self.recorded[key], next(_device(t) for t in inputs if isinstance(t, Tensor))
        self.costs.operations.update(recorded.operations)
        self.costs.peak = max(self.costs.peak, self.costs.live + recorded.peak)
        if kv is not None and not sparse:
            for i, (k, v) in recorded.keys.items():
                kv.layers[self.call.pass_index, self.layers[i]] = k.empty(device), v.empty(device)
        return tree_map_only(TensorSpec, lambda t: t.empty(device), recorded.out, is_leaf=_is_spec)

    def record(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Recorded]:
        costs, kv = self.costs, self.call.kv
        before, live, peak = costs.operations.copy(), costs.live, costs.peak
        costs.peak = live
        out = self.forward(*args, **kwargs)
        layers = {} if kv is None else kv.layers
        places = {i: (self.call.pass_index, layer) for i, layer in enumerate(self.layers)}
        keys = {i: tuple(map(_spec, layers[at])) for i, at in places.items() if at in layers}
        results = tree_map_only(Tensor, _spec, out)
        recorded = Recorded(costs.operations - before, costs.peak - live, results, keys)
        costs.peak = max(peak, costs.peak)
        return out, recorded


@contextmanager
def count_costs(transformer: Transformer, recorded: dict[Any, Recorded]) -> Iterator[Costs]:
    """Count what runs inside. recorded: modules that ran before; pass it to the next call to reuse them."""
    with ExitStack() as stack:
        found = stack.enter_context(Costs())
        stack.enter_context(FusedAttention(found))
        for block in transformer.blocks:
            for module in (*block.children(), block):
                vars(module)["forward"] = Replay(module, transformer.call, found, recorded)
                stack.callback(vars(module).pop, "forward")
        yield found


def traffic(op: Any, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Return the bytes that a kernel reads and writes, counting each tensor once."""
    if op in READS_ROWS:
        return sum(map(size, inputs[1:])) + 2 * sum(map(size, outputs))
    if op in WRITES_ROWS:
        return sum(2 * size(t) for t in inputs[1:])
    if op in OVERWRITES:
        inputs = inputs[1:]
    return sum(map(size, inputs)) + sum(map(size, outputs))


def size(t: Tensor) -> int:
    """Return the bytes of a tensor's entries, counting expanded dimensions once."""
    return math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) * t.element_size()


def storage(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _spec(t: Tensor) -> TensorSpec:
    return TensorSpec(t.shape, t.stride(), t.dtype)


def _is_spec(x: Any) -> bool:
    return isinstance(x, TensorSpec)


def _on(device: str, tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor) and _device(t).type == device]


def _device(t: Tensor) -> torch.device:
    """Return the device; for a fake tensor the usual attribute would dispatch an operation."""
    return t.fake_device if isinstance(t, FakeTensor) else t.device
