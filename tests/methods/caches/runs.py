"""The same image by a stock pipeline's own call and by ours, on the tiny pipelines of tests/pipelines.py."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fovea.methods import Cache, Caching
from fovea.methods.caches import (
    FORA,
    DBCache,
    DeltaDiT,
    EasyCache,
    FBCache,
    Forecast,
    MagCache,
    SeaCache,
    TaylorOutput,
    TaylorSeer,
    TeaCache,
)
from fovea.models import Flow, generate, generator
from tests.pipelines import PIPELINES, stock_tokens

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
}
THRESHOLDS = {  # where a family's random weights change more from step to step
    ("flux2_klein", "teacache"): 1.14,
    ("flux2_klein", "fbcache"): 1.02,
    ("flux2_klein", "dbcache"): 0.99,
}

# modules of each family by regular expressions, as diffusers' hooks take them
ATTENTIONS = {
    "sd3": [r"transformer_blocks\.\d+\.attn"],
    "sd35": [r"transformer_blocks\.\d+\.attn2?"],
    "lumina": [r"layers\.\d+\.attn[12]"],
    "flux": [r"(single_)?transformer_blocks\.\d+\.attn"],
    "qwen": [r"transformer_blocks\.\d+\.attn"],
    "flux2_klein": [r"(single_)?transformer_blocks\.\d+\.attn"],
    "zimage": [r"layers\.\d+\.attention"],
}
MODULES = {  # attentions and MLPs (those that share a projection, by it), and what need not run without them
    "sd3": ([r"transformer_blocks\.\d+\.(attn|ff|ff_context)"], None),
    "sd35": ([r"transformer_blocks\.\d+\.(attn2?|ff|ff_context)"], None),
    "lumina": ([r"layers\.\d+\.(attn2\.to_out\.0|feed_forward)"], [r"layers\.\d+\.attn[12]"]),
    "flux": (
        [
            r"transformer_blocks\.\d+\.(attn|ff|ff_context)",
            r"single_transformer_blocks\.\d+\.proj_out",
        ],
        [r"single_transformer_blocks\.\d+\.(attn|proj_mlp)"],
    ),
    "qwen": ([r"transformer_blocks\.\d+\.(attn|img_mlp|txt_mlp)"], None),
    "flux2_klein": (
        [r"transformer_blocks\.\d+\.(attn|ff|ff_context)", r"single_transformer_blocks\.\d+\.attn"],
        None,
    ),
    "zimage": ([r"layers\.\d+\.(attention|feed_forward)"], None),
}
OUTPUT = {  # SD3's last block, whose text is None, stays: the hooks cannot stand in for it
    "sd3": ([r"proj_out"], [r"transformer_blocks\.[01]"]),
    "sd35": ([r"proj_out"], [r"transformer_blocks\.[01]"]),
    "lumina": ([r"norm_out"], [r"layers\.\d+"]),
    "flux": ([r"proj_out"], [r"(single_)?transformer_blocks\.\d+"]),
    "qwen": ([r"proj_out"], [r"transformer_blocks\.\d+"]),
    "flux2_klein": ([r"proj_out"], [r"(single_)?transformer_blocks\.\d+"]),
    "zimage": ([r"all_final_layer\.2-1"], [r"layers\.\d+"]),
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


def options(family: str) -> dict:
    limit = {} if family == "lumina" else {"max_sequence_length": 16}
    if family == "zimage":  # texts of one length: cache-dit looks at what the mask hides too
        limit = {"max_sequence_length": 32}
    return {"height": 64, "width": 96} | limit


def guided(family: str) -> float:
    """Classifier-free guidance, except where the pipeline evaluates the halves one after the other: a hook
    then decides for each, and a method for the image."""
    return {"flux": 3.5, "qwen": 1.0, "flux2_klein": 1.0}.get(family, 4.0)


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
