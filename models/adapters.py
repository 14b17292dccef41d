"""Adapt a stock diffusers pipeline to a `Model` for the duration of a `with` block."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import diffusers

from fovea.models.attention import call_eager, compiler_disabled
from fovea.models.families import FAMILIES
from fovea.models.forward import compiled
from fovea.models.kv import Call
from fovea.models.model import Model
from fovea.models.supported import NATIVE, backend, check_supported, claim, release
from fovea.models.text_limits import suppress_truncation_warnings


@contextmanager
def adapt(pipe: Any, dense: Literal["tokens", "stock"] = "tokens") -> Iterator[Model]:
    """Adapt the pipeline; its own attention processors are restored when the block ends.

    dense: how calls on all tokens without `kv` run. "tokens" runs the transformer's modules one by one.
        "stock" runs the transformer's own `forward`, with the same result, for whatever is attached to it:
        diffusers' and cache-dit's caches, a compiled transformer, layers that round a token depending on the
        others in the batch, forward hooks. Each `flow` resets these caches, so one trajectory has to end
        before the next begins.

    Supported in both modes: LoRA, offloading, compiled blocks, layerwise casting, quantisation that treats
    each token independently, torch's attention kernels (set_attention_backend), and every schedule of
    FlowMatchEulerDiscreteScheduler.

    Raises TypeError for other kinds of pipeline and for unsupported features: other schedulers, custom
    attention processors, fused projections (models/supported.py). Raises RuntimeError while another `adapt`
    uses the same transformer.
    """
    if dense not in ("tokens", "stock"):
        raise ValueError(f"dense={dense!r}: must be 'tokens' or 'stock'")
    kinds = {getattr(diffusers, family.pipelines[0]): family for family in FAMILIES.values()}
    kind = next((kind for kind in kinds if isinstance(pipe, kind)), None)
    if kind is None:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"no adapter for {type(pipe).__name__}; there is one for {known}")
    family, call = kinds[kind], Call()
    with ExitStack() as restore:
        if (dit := getattr(pipe, "transformer", None)) is not None:
            claim(dit, call)
            restore.callback(release, dit)
        check_supported(pipe, kind, family, dense)
        restore.callback(pipe.maybe_free_model_hooks)
        restore.enter_context(suppress_truncation_warnings(kind))
        eager = compiler_disabled() if compiled(pipe.transformer.modules()) else call_eager
        attentions = [module for module in pipe.transformer.modules() if hasattr(module, "set_processor")]
        for layer, attention in enumerate(attentions):
            restore.callback(attention.set_processor, attention.processor)
            kernel = NATIVE[backend(attention.processor)]
            attention.set_processor(family.processor(layer, call, kernel, eager, attention.processor))
        transformer = family.transformer(pipe, call, dense)
        yield Model(family.name, transformer, family.pipeline(pipe, transformer))
