"""From a stock diffusers pipeline to a `Model`, for as long as a `with` block lasts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import diffusers

from fovea.models.attention import outside, uncompiled
from fovea.models.families import FAMILIES
from fovea.models.forward import compiled
from fovea.models.kv import Call
from fovea.models.model import Model
from fovea.models.supported import NATIVE, backend, claim, release, require
from fovea.models.text_limits import untold


@contextmanager
def adapt(pipe: Any, dense: Literal["tokens", "stock"] = "tokens") -> Iterator[Model]:
    """The pipeline as a model of velocities; its own attention processors are back when the block ends.

    dense: "tokens" runs every call over the transformer's modules; "stock" runs calls on all tokens that keep
    nothing (no kv) through the transformer's own `forward`, with the same result, for hooks that live there:
    diffusers' and cache-dit's caches, a compiled transformer, layers that round a token by the others they
    are given, forward hooks. Each `flow` starts their caches anew, so that one trajectory has to end before
    the next begins. Followed in both: LoRA, offloading, compiled blocks, layerwise cast weights, quantised
    ones where each token is treated for itself, torch's kernels of attention (set_attention_backend), every
    schedule of FlowMatchEulerDiscreteScheduler.

    TypeError for another kind of pipeline, or for what it carries that is not followed: other schedulers,
    attention processors of one's own, fused projections; see models/supported.py. RuntimeError while another
    `adapt` has the same transformer.
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
        require(pipe, kind, family, dense)
        restore.callback(pipe.maybe_free_model_hooks)
        restore.enter_context(untold(kind))
        apart = uncompiled() if compiled(pipe.transformer.modules()) else outside
        attentions = [module for module in pipe.transformer.modules() if hasattr(module, "set_processor")]
        for layer, attention in enumerate(attentions):
            restore.callback(attention.set_processor, attention.processor)
            kernel = NATIVE[backend(attention.processor)]
            attention.set_processor(family.processor(layer, call, kernel, apart))
        transformer = family.transformer(pipe, call, dense)
        yield Model(family.name, transformer, family.pipeline(pipe, transformer))
