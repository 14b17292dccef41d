from functools import cache

import pytest
import torch

from fovea.models import generator
from tests.pipelines import PIPELINES, text_limit

PROMPTS = ["a red fox", "two small boats on the sea", "a map"]


@cache
def made(name, dtype):
    return PIPELINES[name](dtype)


@pytest.fixture(params=list(PIPELINES))
def name(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request):
    return request.param


@pytest.fixture
def pipe(name):
    """The family's tiny pipeline in float32, shared by all tests: leave it as it is."""
    return made(name, torch.float32)


@pytest.fixture
def flow_of(name):
    """A flow of the first b prompts, guided."""

    def flow(model, b=3, height=96, width=144, steps=4, first=0, guided=True):
        scale = 2.0 if guided else 0.0
        options = {"guidance": scale}
        if name == "flux":
            options = {"guidance": 3.5, "true_cfg_scale": scale, "negative": "ugly"}
        prompts = PROMPTS[first : first + b]
        generators = [generator(p, 0) for p in prompts]
        size = {"height": height, "width": width, "steps": steps}
        limit = text_limit(model.pipeline.pipe)
        return model.flow(prompts, generators=generators, **size, **options, **limit)

    return flow
