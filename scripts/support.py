"""Which method runs on which family: here, as diffusers' hook, in cache-dit. Writes docs/support.md.

    python -m scripts.support

The tiny random pipelines of the tests, one prompt. The hooks and cache-dit are put on as their documentation
says, with what is in the installed wheels and nothing mended, and then the pipeline's own call is made.
"""

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cache_dit
import torch
from cache_dit import DBCacheConfig
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.hooks.mag_cache import MagCacheConfig, apply_mag_cache
from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig, apply_taylorseer_cache
from torch import Tensor

from fovea.methods import Cache
from fovea.methods.caches import DBCache, FBCache, MagCache, TaylorSeer
from tests.methods.caches.runs import RATIOS, STEPS, guided, run, stock
from tests.methods.test_contract import DENSE, METHODS
from tests.methods.test_contract import run as contract
from tests.pipelines import PIPELINES

TABLE = Path(__file__).resolve().parents[1] / "docs" / "support.md"
EQUAL, RUNS, NOTHING = "equal", "runs", "**nothing**"
OURS: dict[str, Cache] = {
    "taylorseer": TaylorSeer(interval=4, order=1, warmup=3, modules="attention"),
    "fbcache": FBCache(threshold=0.9),
    "magcache": MagCache(threshold=0.3, ratios=RATIOS),
    "dbcache": DBCache(threshold=0.9, warmup=2),
}
HEAD = """\
# What runs where

Made by `python -m scripts.support` on tiny random pipelines, with diffusers {diffusers} and cache-dit
{cache_dit}; a test holds it to the code.

- Here: every file of `conf/method`, and of `conf/method/cache` under `caching`. *runs*: it makes another
  image than the dense baseline; `baseline` and `steps` make one.
- Elsewhere: the hook or cache is put on as its documentation says, and the pipeline's own call is made.
  *equal*: bit for bit the image of the same cache here. *runs*: another image than without it. *nothing*:
  it is put on without a word, and the image is the one without it. Else what it raises.

Where a pipeline evaluates the halves of guidance one after the other (FLUX, Qwen-Image, FLUX.2-klein), caches
are compared without guidance: a hook decides for each half, and here a cache decides for the image.
"""


def found(image: Callable[[], Tensor], dense: Tensor, ours: Tensor) -> str:
    """What became of a call that makes an image (n, c)."""
    try:
        x = image()
    except Exception as error:  # any: this is what the table is about
        return f"`{type(error).__name__}`"
    if torch.equal(x, dense):
        return NOTHING
    return EQUAL if torch.equal(x, ours) else RUNS


HOOKS: dict[str, Callable[[Any], None]] = {  # with the settings of `OURS`
    "taylorseer": lambda dit: apply_taylorseer_cache(
        dit,
        TaylorSeerCacheConfig(
            cache_interval=4, max_order=1, disable_cache_before_step=3, taylor_factors_dtype=torch.float32
        ),
    ),
    "fbcache": lambda dit: apply_first_block_cache(dit, FirstBlockCacheConfig(threshold=0.9)),
    "magcache": lambda dit: apply_mag_cache(
        dit, MagCacheConfig(threshold=0.3, num_inference_steps=STEPS, mag_ratios=[*RATIOS])
    ),
}


def hooked(family: str, name: str) -> Tensor:
    pipe = PIPELINES[family]()
    HOOKS[name](pipe.transformer)
    return stock(pipe, family)


def cached_by_cache_dit(family: str, cache: DBCache) -> Tensor:
    """Its image. Where there is no guidance it is told so: by default it takes every other call for the half
    without prompt."""
    pipe = PIPELINES[family]()
    config = DBCacheConfig(
        Fn_compute_blocks=cache.front,
        Bn_compute_blocks=cache.back,
        residual_diff_threshold=cache.threshold,
        max_warmup_steps=cache.warmup,
        max_cached_steps=-1,
        max_continuous_cached_steps=-1,
        num_inference_steps=STEPS,
        enable_separate_cfg=False if guided(family) <= 1 else None,
    )
    try:
        cache_dit.enable_cache(pipe, cache_config=config)
        return stock(pipe, family)
    finally:
        cache_dit.disable_cache(pipe)


def elsewhere(family: str) -> dict[str, dict[str, str]]:
    """Library, cache -> what became of it on the family."""
    dense = stock(PIPELINES[family](), family)
    ours = {name: run(family, cache).x[0] for name, cache in OURS.items()}
    by_cache_dit = {"dbcache": OURS["dbcache"], "fbcache": DBCache(threshold=0.9, warmup=0)}
    return {
        "diffusers": {
            name: found(lambda name=name: hooked(family, name), dense, ours[name]) for name in HOOKS
        },
        "cache-dit": {
            name: found(lambda cache=cache: cached_by_cache_dit(family, cache), dense, ours[name])
            for name, cache in by_cache_dit.items()
        },
    }


def here(family: str) -> dict[str, str]:
    """Method -> what became of it on the family."""
    pipe = PIPELINES[family]()
    dense = contract(pipe, METHODS["baseline"], ["a fox"]).x[0]

    def made(name: str) -> str:
        own = found(lambda: contract(pipe, METHODS[name], ["a fox"]).x[0], dense, dense)
        return RUNS if name in DENSE and own == NOTHING else own

    return {name: made(name) for name in METHODS}


def table(title: str, columns: dict[str, dict[str, str]]) -> str:
    """Rows are methods, columns families."""
    rows = list(next(iter(columns.values())))
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    lines += [[f"`{row}`", *(columns[family][row] for family in columns)] for row in rows]
    return "\n".join([f"## {title}", "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def page() -> str:
    others = {family: elsewhere(family) for family in PIPELINES}
    versions = {name.replace("-", "_"): version(name) for name in ("diffusers", "cache-dit")}
    return "\n".join(
        [
            HEAD.format(**versions),
            table("Here", {family: here(family) for family in PIPELINES}),
            table("diffusers' hooks", {family: own["diffusers"] for family, own in others.items()}),
            table("cache-dit", {family: own["cache-dit"] for family, own in others.items()}),
        ]
    )


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    TABLE.write_text(page())
    print(TABLE)
