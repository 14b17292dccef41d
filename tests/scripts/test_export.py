"""scripts/export.py: its lines, executed on a stock pipeline, make the image of the cache here."""

import pytest
import torch

from fovea.methods.caches import FORA, DBCache, FBCache, MagCache, TaylorSeer
from fovea.study.config.errors import Refused
from scripts.export import export, snippet
from tests.methods.caches.runs import RATIOS, STEPS, run, stock
from tests.pipelines import PIPELINES

CACHES = [
    FBCache(threshold=0.9),
    MagCache(threshold=0.3, max_skips=2, retention=0.25, ratios=RATIOS),
    TaylorSeer(interval=4, order=1, warmup=3, modules="attention"),
    DBCache(threshold=0.9, warmup=2, max_in_a_row=3),
]


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: type(cache).__name__)
def test_the_lines_make_the_same_image_on_a_stock_pipeline(cache):
    pipe, dense = PIPELINES["flux"](), stock(PIPELINES["flux"](), "flux")
    exec(snippet(cache, STEPS), {"pipe": pipe})
    try:
        found = stock(pipe, "flux")
    finally:
        if isinstance(cache, DBCache):
            import cache_dit

            cache_dit.disable_cache(pipe)
    assert torch.equal(found, run("flux", cache).x[0])
    assert not torch.equal(found, dense)


def test_a_command_line_gives_them():
    text = export(["model=flux_tiny", "cache=fbcache", "method.cache.threshold=0.123"])
    assert "FirstBlockCacheConfig(threshold=0.123)" in text
    assert "num_inference_steps=20" in export(["model=flux_tiny", "cache=magcache"])


@pytest.mark.parametrize(
    ("cache", "said"),
    [(FORA(), "FORA: neither diffusers nor cache-dit has it"), (TaylorSeer(), "modules=all")],
)
def test_what_they_have_not_is_refused(cache, said):
    with pytest.raises(Refused, match=said):
        snippet(cache, STEPS)
