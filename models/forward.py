"""What may be attached to a transformer's own forward: offloading, caches, hooks, a compiler.

Running the transformer's modules directly bypasses all of it.
"""

import inspect
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

PLAIN = (Tensor, nn.Parameter, FakeTensor)  # types of unquantised weights


def forward_wrappers(dit: Any) -> Iterator[tuple[str, str]]:
    """Yield what is attached to the transformer's own forward, and how to remove it.

    Running the transformer's modules bypasses it.
    """
    config = getattr(dit, "_cache_config", None)
    others = {name for name in hooks(dit) if name != "layerwise_casting" and "group_offloading" not in name}
    inner = getattr(dit, "_orig_mod", dit)
    if getattr(dit, "_is_cached", False):
        yield "its transformer is cached by cache-dit", "cache_dit.disable_cache(pipe)"
    elif config is not None:
        yield f"its transformer has a cache, {type(config).__name__}", "pipe.transformer.disable_cache()"
    elif others:
        yield f"its transformer's modules have hooks, {', '.join(sorted(others))}", "remove them"
    elif ("forward" in vars(inner) and not hasattr(inner, "_hf_hook")) or not _stock(type(inner).forward):
        yield "its transformer's forward has been replaced", "restore diffusers' own"
    if inner is not dit or compiled([dit]):
        yield (
            "its transformer is compiled as a whole",
            "compile its blocks, as pipe.transformer.compile_repeated_blocks() does",
        )
    if (kind := mixing_layer(dit)) is not None:
        yield (
            f"its transformer is quantised, and its layers ({kind}) round a token depending on the others",
            "load it unquantised, or quantise its weights only",
        )
    if dit._forward_hooks or dit._forward_pre_hooks:
        yield "its transformer has forward hooks", "remove them"


def compiled(modules: Iterable[nn.Module]) -> bool:
    """True if any module was compiled by `module.compile()`."""
    return any(module._compiled_call_impl is not None for module in modules)


def mixing_layer(dit: nn.Module) -> str | None:
    """Return a description of the first quantised layer that does not treat tokens independently, if any."""
    return next((_described(module) for module in _quantised(dit) if not is_tokenwise(module, dit)), None)


def needing_tokens(dit: nn.Module) -> str | None:
    """Return a description of the first quantised layer that fails when given no tokens, if any."""
    return next((_described(module) for module in _quantised(dit) if not _takes_none(module, dit)), None)


def _described(module: nn.Module) -> str:
    return f"{type(module).__module__.partition('.')[0]}'s {type(module).__name__}"


def _quantised(dit: nn.Module) -> list[nn.Module]:
    """Return one quantised layer of each kind."""
    kinds: dict[Any, nn.Module] = {}
    for module in dit.modules():
        weight = getattr(module, "weight", None)
        plain = isinstance(weight, Tensor) and type(weight) in PLAIN and weight.is_floating_point()
        if not plain and (weight is not None or hasattr(module, "in_features")):
            kinds.setdefault((type(module), type(weight), getattr(weight, "dtype", None)), module)
    return [*kinds.values()]


@torch.no_grad()
def is_tokenwise(layer: nn.Module, dit: nn.Module) -> bool:
    """True if a layer's output for a token does not depend on the other tokens, bit for bit.

    Tried with other tokens scaled by a thousand.
    """
    try:
        x = _tokens(layer, dit, 16)
        beside = torch.cat([x[:, :8], 1000 * x[:, 8:]], 1)
        return torch.equal(layer(x)[:, :8], layer(beside)[:, :8])
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):  # does not take tokens
        return False


@torch.no_grad()
def _takes_none(layer: nn.Module, dit: nn.Module) -> bool:
    try:
        return layer(_tokens(layer, dit, 0)).shape[1] == 0
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False


def _tokens(layer: Any, dit: nn.Module, n: int) -> Tensor:
    """Return n random tokens (1, n, d) for a layer, on its device and in the transformer's dtype."""
    held = [*layer.parameters(), *layer.buffers(), *dit.parameters()]
    device = next((t.device for t in held if not t.is_meta), torch.device("cpu"))
    dtype = next(t.dtype for t in dit.parameters() if t.is_floating_point())
    x = torch.randn(1, n, layer.in_features, generator=torch.Generator().manual_seed(0))
    return x.to(device, dtype)


def _stock(forward: Any) -> bool:
    return inspect.unwrap(forward).__module__.startswith("diffusers.")


def hooks(dit: nn.Module) -> set[str]:
    """Return the names of diffusers' hooks on the transformer and its modules."""
    registries = (getattr(module, "_diffusers_hook", None) for module in dit.modules())
    return {name for registry in registries if registry is not None for name in registry.hooks}


def reset_caches(dit: Any) -> None:
    """Reset the caches on the transformer for a new trajectory, as the pipeline's own call does."""
    if getattr(dit, "_cache_config", None) is not None:
        dit._reset_stateful_cache()
    if getattr(dit, "_is_cached", False):  # cache-dit has one context per list of blocks
        settings = (getattr(module, "_context_kwargs", None) for module in dit.modules())
        for name, options in {s["name"]: s for s in settings if s}.items():
            dit._context_manager.reset_context(name, **options)


def has_cache(dit: Any) -> bool:
    return getattr(dit, "_cache_config", None) is not None or getattr(dit, "_is_cached", False)


def guidance_context(dit: Any, name: str) -> AbstractContextManager:
    """Context for a call of the transformer's forward that tells its caches the guidance half."""
    return dit.cache_context(name) if hasattr(dit, "cache_context") else nullcontext()


def ensure_on_device(dit: nn.Module) -> None:
    """Move an offloaded transformer to its device. Its hook waits for a forward that is never called."""
    hook: Any = getattr(dit, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(dit)
