"""The same image by a stock pipeline's own call and by ours, on the tiny pipelines of tests/pipelines.py."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fovea.methods import Cache, Caching
from fovea.methods.caches import (
    FORA,
    DBCache,
    DeltaDiT,
    DiCache,
    EasyCache,
    FBCache,
    Forecast,
    MagCache,
    SeaCache,
    TaylorOutput,
    TaylorSeer,
    TeaCache,
)
from fovea.models import Flow, adapt, generate, generator
from tests.pipelines import PIPELINES, stock_tokens, text_limit

STEPS = 12
PROMPTS = ["a fox", "two red apples on a table", ""]
RATIOS = (1.0, 1.2, 1.1, 1.05, 1.04, 1.02, 1.0, 0.99, 1.01, 0.98, 0.95, 0.9)
CACHES = {
    "fora": FORA(interval=3),
    "taylorseer": TaylorSeer(interval=4, order=2, warmup=3),
    "taylorseer_attention": TaylorSeer(interval=4, warmup=3, modules="attention"),
    "taylor_output": TaylorOutput(interval=3),
    "teacache": TeaCache(threshold=0.6, coefficients=(1.0, 0.0)),
    "magcache": MagCache(threshold=0.3, ratios=RATIOS),
    "fbcache": FBCache(threshold=0.6),
    "dbcache": DBCache(threshold=0.55, warmup=1, back=1, max_skips=8),
    "delta_dit": DeltaDiT(interval=3, share=0.5),
    "seacache": SeaCache(threshold=0.6),
    "forecast": Forecast("chebyshev", "growing", "hidden"),
    "easycache": EasyCache(threshold=0.5),
    "dicache": DiCache(threshold=0.9),
}
THRESHOLDS = {  # where a family's random weights change more from step to step
    ("flux2_klein", "teacache"): 1.14,
    ("flux2_klein", "fbcache"): 1.02,
    ("flux2_klein", "dbcache"): 0.99,
}


def cache_of(family: str, name: str) -> Cache:
    threshold = THRESHOLDS.get((family, name))
    return CACHES[name] if threshold is None else replace(CACHES[name], threshold=threshold)


class Run(NamedTuple):
    """Final tokens (b, n, c), the flow that made them, and the blocks that ran per image and step."""

    x: Tensor
    flow: Flow
    blocks: list[list[int]]

    def skipped(self, image: int = 0) -> list[int]:
        """Steps at which fewer blocks ran for the image than there are."""
        return [i for i, ran in enumerate(self.blocks[image]) if ran < len(self.flow.transformer.blocks)]


class Facts(NamedTuple):
    """Of a family: modules by regular expressions, as diffusers' hooks take them.

    attentions: attention modules of the blocks.
    modules: attentions and MLPs, or what stands for them, and what need not run without them.
    output: last projection, and the blocks.
    passes: whether the pipeline evaluates the halves of guidance one after the other.
    limit: option of the pipeline's call that cuts texts.
    """

    attentions: list[str]
    modules: tuple[list[str], list[str] | None]
    output: tuple[list[str], list[str] | None]
    passes: bool
    limit: dict[str, int]


@cache
def facts(family: str) -> Facts:
    pipe = PIPELINES[family]()
    with adapt(pipe) as model:
        flow = model.flow(["a"], generators=[generator("a", 0)], height=64, width=96, guidance=2.0)
        names = {module: re.escape(name) for name, module in pipe.transformer.named_modules()}
        attentions, modules = (
            tuple([names[module] for module in group] or None for group in model.transformer.sites(kind))
            for kind in ("attention", "all")
        )
        # SD3's last block, whose text is None, stays: the hooks cannot stand in for it
        blocks = model.blocks[:-1] if family in ("sd3", "sd35") else model.blocks
        output = [names[last_module(flow)]], [names[block] for block in blocks]
        return Facts(attentions[0], modules, output, len(flow.cond.passes) > 1, text_limit(pipe))


def last_module(flow: Flow) -> nn.Module:
    """The module that gives the transformer's output."""
    ended: list[nn.Module] = []
    hooks = [m.register_forward_hook(lambda m, *_: ended.append(m)) for m in flow.transformer.dit.modules()]
    evaluation = flow.prepare(flow.noise(), flow.sigmas()[0])
    evaluation.readout(evaluation.hidden)
    for hook in hooks:
        hook.remove()
    return ended[-1]


def options(family: str) -> dict:
    limit = facts(family).limit
    if family == "zimage":  # texts of one length: cache-dit looks at what the mask hides too
        limit = {"max_sequence_length": 32}
    return {"height": 64, "width": 96} | limit


def guided(family: str) -> float:
    """Classifier-free guidance, except where the pipeline evaluates the halves one after the other: a hook
    then decides for each, and a method for the image."""
    return 3.5 if family == "flux" else 0.0 if facts(family).passes else 4.0


def stock(pipe, family: str, prompt=PROMPTS[0], guidance: float | None = None) -> Tensor:
    """Tokens (n, c) of the pipeline's own call."""
    scale = guided(family) if guidance is None else guidance
    own = {"true_cfg_scale": scale, "negative_prompt": ""} if family == "qwen" else {"guidance_scale": scale}
    return stock_tokens(
        pipe,
        prompt,
        num_inference_steps=STEPS,
        generator=generator(prompt, 0),
        **own,
        **options(family),
    )[0]


def run(
    family: str,
    method,
    prompts: Sequence[str] = PROMPTS[:1],
    guidance: float | None = None,
    pipe=None,
    on_step=None,
) -> Run:
    """The prompts as one batch, by a method, or by a cache under `Caching`."""
    method, flows = Caching(method, STEPS) if isinstance(method, Cache) else method, []
    totals: list[list[int]] = [[0] for _ in prompts]

    def watched(flow, on_step=None):
        flows.append(flow)
        return method(flow, on_step)

    def count(**step):
        for image, total in enumerate(totals):
            total.append(flows[0].blocks(image))
        if on_step:
            on_step(**step)

    made = generate(
        pipe or PIPELINES[family](),
        prompts,
        method=watched,
        batch=len(prompts),
        guidance=guided(family) if guidance is None else guidance,
        output="latent",
        on_step=count,
        **options(family),
    )
    return Run(torch.stack(made), flows[0], [[b - a for a, b in pairwise(total)] for total in totals])
