"""Every configured method and cache on every embedded model, as `python run.py` composes them."""

from pathlib import Path

import pytest
import torch

from fovea.models import adapt, generator
from fovea.study.config.compose import load, whole
from fovea.study.config.groups import options
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.nodes import checked

MODELS = sorted(path.stem for path in Path("conf/model").glob("*_tiny.yaml"))
CHOICES = [f"method={name}" for name in options("method")]
CHOICES += [f"method=caching cache={name}" for name in options("method/cache")]
CHOICES = [
    # fitted to runs of 20 steps: of another number only with nodes and weights of its own
    f"{choice} method.of=7 method.nodes=[0,2,4] method.weights=[[1],[-0.5,1.5],[0,-1,2]]"
    if choice == "method=multistep"
    else choice
    for choice in CHOICES
]
SMALL = ["model.height=64", "model.width=96", "model.steps=7"]
PROMPTS = ["a fox on a blue ground"]


@pytest.fixture(scope="module", params=MODELS)
def loaded(request):
    node = whole(load([f"model={request.param}", *SMALL]))["model"]
    node, _ = checked(node, {"_target_": "fovea.methods.Baseline"})
    return request.param, instantiate(node, "model", "fovea.models").load()


@pytest.fixture(scope="module")
def noise(loaded):
    return made(loaded, ["method=steps", "method.steps=1"])[1]


def made(loaded, overrides):
    name, pipe = loaded
    config = whole(load([f"model={name}", *SMALL, *overrides]))
    model, method = checked(config["model"], config["method"])
    limit = {"max_sequence_length": model["max_sequence_length"]} if model["max_sequence_length"] else {}
    with adapt(pipe) as adapted:
        generators = [generator(prompt, 0) for prompt in PROMPTS]
        size = {key: model[key] for key in ("height", "width", "steps", "guidance")}
        flow = adapted.flow(PROMPTS, generators=generators, **size, **limit)
        return flow, instantiate(method, "method", "fovea.methods")(flow)


@pytest.mark.parametrize("choice", CHOICES)
def test_it_runs(loaded, noise, choice):
    flow, x = made(loaded, choice.split())
    assert x.shape == noise.shape
    assert torch.isfinite(x).all()
    assert not torch.equal(x, noise)
    assert flow.tokens() > 0
