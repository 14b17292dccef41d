"""Which features of a user's pipeline are supported; others are rejected by name before any work."""

import inspect
from collections.abc import Iterator
from typing import Any
from weakref import ref

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_dispatch import _AttentionBackendRegistry as Backends
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from fovea.models.attention import KERNELS
from fovea.models.autoencoder import latent_channels
from fovea.models.family import Family
from fovea.models.forward import forward_wrappers, hooks
from fovea.models.kv import Call, Claim

EULER = FlowMatchEulerDiscreteScheduler
NATIVE = {"native": "auto"} | {f"_native_{kernel}": kernel for kernel in KERNELS}  # diffusers' name -> ours
NOT_OVERRIDABLE = ("__call__", "prepare_latents")  # methods that a subclass of the pipeline must not override


def check_supported(pipe: Any, kind: type, family: Family, dense: str) -> None:
    """Raise TypeError naming every feature of the pipeline that its adapter does not support.

    kind: stock class whose call the adapter reproduces.
    dense: see `adapt`.
    """
    found = [*missing_parts(pipe, kind, family.components)]
    if not found:
        found = [
            *scheduler_problems(pipe.scheduler),
            *channel_problems(pipe, family),
            *placement_problems(pipe),
        ]
        found += attention_problems(pipe.transformer, family.processor.replaces)
        found += family.transformer.unsupported(pipe.transformer)
        if dense == "tokens":
            found += [
                f"{what}; {remedy}, or run methods that take all tokens with dense='stock'"
                for what, remedy in forward_wrappers(pipe.transformer)
            ]
    if found:
        raise TypeError(
            f"this {type(pipe).__name__} cannot be followed exactly: " + "; moreover, ".join(found)
        )


def missing_parts(pipe: Any, kind: type, parts: tuple[str, ...]) -> Iterator[str]:
    for name in NOT_OVERRIDABLE:
        if inspect.unwrap(getattr(type(pipe), name)) is not inspect.unwrap(getattr(kind, name)):
            yield f"{type(pipe).__name__} has a {name} of its own, not {kind.__name__}'s"
    for name in parts:
        if getattr(pipe, name, None) is None:
            yield f"it has no {name}"


def scheduler_problems(scheduler: Any) -> Iterator[str]:
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


def channel_problems(pipe: Any, family: Family) -> Iterator[str]:
    given, taken = (
        latent_channels(pipe.vae.config),
        family.transformer.patch_and_channels(pipe.transformer)[1],
    )
    if given != taken:
        yield (
            f"its transformer takes {taken} channels and its autoencoder gives {given}: "
            "pipelines that take an image as input are not supported"
        )


def attention_problems(dit: nn.Module, processors: tuple[str, ...]) -> Iterator[str]:
    for name, module in dit.named_modules():
        if not hasattr(module, "set_processor"):
            continue
        processor: Any = module.processor
        kind = type(processor).__name__
        fused = getattr(module, "fused_projections", False) and kind in (
            "FluxAttnProcessor",
            "Flux2AttnProcessor",
        )
        if fused or "Fused" in kind:
            yield "its attention has fused projections: pipe.transformer.unfuse_qkv_projections()"
        elif kind not in processors or not type(processor).__module__.startswith("diffusers."):
            usual = " or ".join(processors)
            yield f"{name} has the attention processor {kind}, which would be replaced; supported: {usual}"
        elif getattr(processor, "_parallel_config", None) is not None:
            yield "its attention is spread over devices (enable_parallelism)"
        elif backend(processor) not in NATIVE:
            yield (
                f"its attention backend is {backend(processor)}, and the adapter's are torch's own, "
                f"{', '.join(NATIVE)}: pipe.transformer.reset_attention_backend()"
            )
        else:
            continue
        return  # the other modules have the same problem


def backend(processor: Any) -> str:
    """Return diffusers' attention backend of a processor; "native" (torch) if it has no such setting."""
    if not hasattr(processor, "_attention_backend"):
        return "native"
    name = processor._attention_backend or Backends.get_active_backend()[0]
    return str(getattr(name, "value", name))


def set_attention_kernel(dit: nn.Module, kernel: str) -> None:
    """Use this torch kernel for all attention of the transformer under `adapt`.

    Like set_attention_backend, but also for families whose processors lack that setting, and without changing
    other models.
    """
    name = AttentionBackendName(next(backend for backend, known in NATIVE.items() if known == kernel))
    for module in dit.modules():
        if hasattr(module, "set_processor"):
            vars(module.processor)["_attention_backend"] = name


def placement_problems(pipe: Any) -> list[str]:
    """Check device placement and autocast. accelerate's offloading is supported: see `ensure_on_device`."""
    found = []
    if len(set((getattr(pipe, "hf_device_map", None) or {}).values())) > 1:
        found.append("its components are spread over devices: pipe.reset_device_map()")
    kind = pipe.transformer.device.type
    if kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind):
        found.append(
            "torch.autocast is on, which rounds its parts otherwise when they run one by one: leave "
            "autocast, and load the pipeline with the dtype that you want"
        )
    if any("group_offloading" in name for name in hooks(pipe.transformer)):
        found.append("its transformer is offloaded by groups: use pipe.enable_model_cpu_offload()")
    return found


def claim(dit: Any, call: Call) -> None:
    """Raise RuntimeError if another `adapt`, in this thread or another, uses the transformer."""
    own = Claim(call, ref(dit))
    held = vars(dit).setdefault("_adapted", own)
    if held.of() is not dit:  # copied with the transformer that it is of
        vars(dit)["_adapted"] = own
    elif held is not own:
        raise RuntimeError(
            "this pipeline's transformer is in use by another adapt or generate: wait until it has finished"
        )


def release(dit: Any) -> None:
    del vars(dit)["_adapted"]
