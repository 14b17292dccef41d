"""Print a cache with its settings as Python code for diffusers or cache-dit, where they have it.

python -m scripts.export model=flux cache=fbcache method.cache.threshold=0.1   # as for run.py

The code enables the cache on `pipe`, whose own call then generates the same image; docs/support.md lists on
which families. Enable diffusers' caches before the pipeline's first call: afterwards they raise that they
have no cache context. Nothing is loaded.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fovea.methods.caches import DBCache, FBCache, MagCache, TaylorSeer
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import instantiate
from scripts.measuring import run_command


def fbcache(cache: FBCache, steps: int) -> str:
    return (
        "from diffusers.hooks import FirstBlockCacheConfig\n\n"
        f"pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold={cache.threshold}))\n"
    )


def magcache(cache: MagCache, steps: int) -> str:
    if cache.as_released:
        raise Refused("method.cache.as_released=true: diffusers has no step that always runs; leave it false")
    return (
        "from diffusers.hooks.mag_cache import MagCacheConfig\n\n"
        f"ratios = {[*(cache.ratios or ())]}\n"
        f"config = MagCacheConfig(threshold={cache.threshold}, max_skip_steps={cache.max_skips}, "
        f"retention_ratio={cache.retention}, num_inference_steps={steps}, mag_ratios=ratios)\n"
        "pipe.transformer.enable_cache(config)\n"
    )


def taylorseer(cache: TaylorSeer, steps: int) -> str:
    if (cache.phase, cache.modules) != ("diffusers", "attention"):
        raise Refused(
            f"method.cache.phase={cache.phase}, method.cache.modules={cache.modules}: diffusers' hook is "
            "phase=diffusers and modules=attention"
        )
    return (
        "import torch\n"
        "from diffusers.hooks.taylorseer_cache import TaylorSeerCacheConfig\n\n"
        f"config = TaylorSeerCacheConfig(cache_interval={cache.interval}, max_order={cache.order}, "
        f"disable_cache_before_step={cache.warmup}, taylor_factors_dtype=torch.float32)\n"
        "pipe.transformer.enable_cache(config)\n"
    )


def dbcache(cache: DBCache, steps: int) -> str:
    skips, in_a_row = (-1 if most is None else most for most in (cache.max_skips, cache.max_in_a_row))
    return (
        "import cache_dit\n\n"
        f"config = cache_dit.DBCacheConfig(Fn_compute_blocks={cache.front}, Bn_compute_blocks={cache.back}, "
        f"residual_diff_threshold={cache.threshold}, max_warmup_steps={cache.warmup}, "
        f"max_cached_steps={skips}, max_continuous_cached_steps={in_a_row}, num_inference_steps={steps}, "
        "enable_separate_cfg=False)\n"
        "cache_dit.enable_cache(pipe, cache_config=config)\n"
    )


KNOWN: dict[type, Callable[[Any, int], str]] = {
    FBCache: fbcache,
    MagCache: magcache,
    TaylorSeer: taylorseer,
    DBCache: dbcache,
}


def snippet(cache: Any, steps: int) -> str:
    """Return the code for a cache. Raises Refused if neither library has it."""
    if type(cache) not in KNOWN:
        names = ", ".join(kind.__name__ for kind in KNOWN)
        raise Refused(f"{type(cache).__name__}: neither diffusers nor cache-dit has it; they have {names}")
    return KNOWN[type(cache)](cache, steps)


def export(arguments: Sequence[str]) -> str:
    """Return the code for these arguments."""
    config = whole(load(["method=caching", *arguments]))
    caching = instantiate(config["method"], "method", "fovea.methods")
    return snippet(caching.cache, caching.steps or config["model"]["steps"])


main = partial(run_command, export)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
