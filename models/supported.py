"""What a user's pipeline carries beside its weights: followed exactly, or refused by name before any work."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Backends
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

EULER = FlowMatchEulerDiscreteScheduler
OWN = ("__call__", "prepare_latents")  # of a pipeline's class: what a subclass may not change unseen


def require(pipe: Any, kind: type, parts: tuple[str, ...], processors: tuple[type, ...], dense: str) -> None:
    """TypeError that names everything of the pipeline that its adapter would not follow.

    kind: the stock class whose call the adapter follows. parts: the components it needs. processors: the
    attention processors it stands in for. dense: see `adapt`.
    """
    found = [*incomplete(pipe, kind, parts)]
    if not found:
        found = [*scheduling(pipe.scheduler), *channels(pipe), *attention(pipe.transformer, processors)]
        found += placement(pipe)
        if dense == "tokens":
            found += [
                f"{what}; {remedy}, or run methods that take all tokens with dense='stock'"
                for what, remedy in around_forward(pipe.transformer)
            ]
    if found:
        raise TypeError(
            f"this {type(pipe).__name__} cannot be followed exactly: " + "; moreover, ".join(found)
        )


def incomplete(pipe: Any, kind: type, parts: tuple[str, ...]) -> Iterator[str]:
    for name in OWN:
        if inspect.unwrap(getattr(type(pipe), name)) is not inspect.unwrap(getattr(kind, name)):
            yield f"{type(pipe).__name__} has a {name} of its own, not {kind.__name__}'s"
    for name in parts:
        if getattr(pipe, name, None) is None:
            yield f"it has no {name}"


def scheduling(scheduler: Any) -> Iterator[str]:
    name, config = type(scheduler).__name__, scheduler.config
    if getattr(type(scheduler), "step", None) is not EULER.step or "step" in vars(scheduler):
        yield (
            f"its scheduler is {name}, and steps are Euler's on {EULER.__name__}'s noise levels: set "
            f"pipe.scheduler = {EULER.__name__}.from_config(...); other solvers are methods, "
            "Steps(solver='heun'), 'dpm++2m' or 'unipc'"
        )
        return
    if config.stochastic_sampling:
        yield "its scheduler has stochastic_sampling=True, which draws noise at every step"
    if config.invert_sigmas:
        yield "its scheduler has invert_sigmas=True, so that its noise levels grow"
    if config.num_train_timesteps != 1000:
        yield f"its scheduler has num_train_timesteps={config.num_train_timesteps}, and time is 1000 sigma"


def channels(pipe: Any) -> Iterator[str]:
    given, taken = pipe.vae.config.latent_channels, pipe.transformer.config.in_channels
    if hasattr(pipe.transformer, "x_embedder"):  # FLUX: channels of a patch of 2 x 2
        taken //= 4
    if given != taken:
        yield f"its transformer takes {taken} channels and its autoencoder gives {given}: an image goes in"


def attention(dit: nn.Module, processors: tuple[type, ...]) -> Iterator[str]:
    for name, module in dit.named_modules():
        if not hasattr(module, "set_processor"):
            continue
        own: Any = module.processor
        kind = type(own).__name__
        fused = getattr(module, "fused_projections", False) and kind == "FluxAttnProcessor"
        if fused or "Fused" in kind:
            yield "its attention has fused projections: pipe.transformer.unfuse_qkv_projections()"
        elif type(own) not in processors:
            usual = " or ".join(p.__name__ for p in processors)
            yield f"{name} has the attention processor {kind}, which would be replaced; known is {usual}"
        elif getattr(own, "_parallel_config", None) is not None:
            yield "its attention is spread over devices (enable_parallelism)"
        elif hasattr(own, "_attention_backend") and backend(own) != "native":
            yield (
                f"its attention backend is {backend(own)}, and the adapter's is torch's own: "
                "pipe.transformer.reset_attention_backend()"
            )
        else:
            continue
        return  # the others are the same


def backend(processor: Any) -> str:
    """Of diffusers' attention backends, the one that answers a processor."""
    name = processor._attention_backend or Backends.get_active_backend()[0]
    return str(getattr(name, "value", name))


def placement(pipe: Any) -> list[str]:
    """Offloading by accelerate is followed: its hooks wait at modules that are called, or see `resident`."""
    found = []
    if len(set((getattr(pipe, "hf_device_map", None) or {}).values())) > 1:
        found.append("its components are spread over devices: pipe.reset_device_map()")
    if any("group_offloading" in name for name in hooks(pipe.transformer)):
        found.append("its transformer is offloaded by groups: use pipe.enable_model_cpu_offload()")
    return found


def around_forward(dit: Any) -> Iterator[tuple[str, str]]:
    """What sits around the transformer's own forward, which a run over its modules does not pass, with what
    takes it off."""
    config = getattr(dit, "_cache_config", None)
    others = {name for name in hooks(dit) if name != "layerwise_casting" and "group_offloading" not in name}
    inner = getattr(dit, "_orig_mod", dit)
    if getattr(dit, "_is_cached", False):
        yield "its transformer is cached by cache-dit", "cache_dit.disable_cache(pipe)"
    elif config is not None:
        yield f"its transformer has a cache, {type(config).__name__}", "pipe.transformer.disable_cache()"
    elif others:
        yield f"its transformer's modules have hooks, {', '.join(sorted(others))}", "take them off"
    elif ("forward" in vars(inner) and not hasattr(inner, "_hf_hook")) or not _stock(type(inner).forward):
        yield "its transformer's forward has been replaced", "put diffusers' own back"
    if inner is not dit or dit._compiled_call_impl is not None:
        yield (
            "its transformer is compiled as a whole",
            "compile its blocks, as pipe.transformer.compile_repeated_blocks() does",
        )
    if dit._forward_hooks or dit._forward_pre_hooks:
        yield "its transformer has forward hooks", "take them off"


def _stock(forward: Any) -> bool:
    return inspect.unwrap(forward).__module__.startswith("diffusers.")


def hooks(dit: nn.Module) -> set[str]:
    """Names of diffusers' hooks on the transformer and its modules."""
    registries = (getattr(module, "_diffusers_hook", None) for module in dit.modules())
    return {name for registry in registries if registry is not None for name in registry.hooks}


def restart(dit: Any) -> None:
    """A new trajectory: the caches on the transformer forget the last one, as in the pipeline's own call."""
    if getattr(dit, "_cache_config", None) is not None:
        dit._reset_stateful_cache()
    if getattr(dit, "_is_cached", False):  # cache-dit: one context for each list of blocks
        settings = (getattr(module, "_context_kwargs", None) for module in dit.modules())
        for name, options in {s["name"]: s for s in settings if s}.items():
            dit._context_manager.reset_context(name, **options)


def cached(dit: Any) -> bool:
    return getattr(dit, "_cache_config", None) is not None or getattr(dit, "_is_cached", False)


def evaluation(dit: Any, name: str) -> AbstractContextManager:
    """Around a call of the transformer's forward: tells its caches which half of guidance it is."""
    return dit.cache_context(name) if hasattr(dit, "cache_context") else nullcontext()


def claim(dit: Any, call: Any) -> None:
    """RuntimeError if the transformer is in use by another `adapt`, in this thread or another."""
    if vars(dit).setdefault("_adapted", call) is not call:
        raise RuntimeError(
            "this pipeline's transformer is in use by another adapt or generate: wait for its end"
        )


def release(dit: Any) -> None:
    del vars(dit)["_adapted"]


def resident(dit: nn.Module) -> None:
    """Brings an offloaded transformer to its device. Its hook waits for a forward that is not called."""
    hook: Any = getattr(dit, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(dit)
