"""What every method keeps to, on every family: each conf/method/*.yaml is tested by being there."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from methods import Baseline
from models import generate
from tests.pipelines import PIPELINES

STEPS = 6
PROMPTS = ["a fox", "two red apples on a table", ""]


def configured():
    """Each conf/method/*.yaml with the settings it writes out; what the model sets stays at its default."""
    for path in sorted(Path("conf/method").glob("*.yaml")):
        node = yaml.safe_load(path.read_text())
        module, name = node.pop("_target_").rsplit(".", 1)
        written = {key: value for key, value in node.items() if "${" not in str(value)}
        yield path.stem, getattr(import_module(module), name)(**written, steps=STEPS)


METHODS = dict(configured())


@pytest.fixture(scope="module", params=PIPELINES)
def pipe(request):
    return PIPELINES[request.param]()


@pytest.fixture(scope="module")
def dense(pipe):
    return tokens(pipe, Baseline(steps=STEPS))


def tokens(pipe, method, prompts=PROMPTS, **options):
    limits = {} if "Lumina" in type(pipe).__name__ else {"max_sequence_length": 16}
    options = {"height": 64, "width": 96, "batch": 3, "guidance": 4.0} | limits | options
    return torch.stack(generate(pipe, prompts, method=method, output="latent", **options)).float()


def processors(pipe):
    return [m.processor for m in pipe.transformer.modules() if hasattr(m, "set_processor")]


@pytest.mark.parametrize("name", METHODS)
def test_contract(pipe, name):
    """The trace says what ran; neither batch nor an earlier crash changes an image; nothing stays behind."""
    method, steps, flows, own = METHODS[name], [], [], processors(pipe)

    def watched(flow, on_step=None):
        flows.append(flow)
        return method(flow, on_step=on_step)

    def crash(i, **step):
        if i == STEPS - 1:
            raise KeyboardInterrupt

    x = tokens(pipe, watched, on_step=lambda **step: steps.append(step))
    assert [step["i"] for step in steps] == list(range(STEPS))
    assert torch.equal(steps[-1]["x"].float(), x)
    assert all(step["v"].shape == x.shape for step in steps)
    rows = [step["rows"] for step in steps]
    assert sum(x.shape[1] if r is None else r.shape[1] for r in rows) <= sum(flows[0].evaluated)
    assert all(len(own.unique()) == len(own) for r in rows if r is not None for own in r)

    with pytest.raises(KeyboardInterrupt):
        tokens(pipe, method, on_step=crash)
    assert torch.equal(tokens(pipe, method), x)
    assert all(a is b for a, b in zip(processors(pipe), own, strict=True))
    torch.testing.assert_close(tokens(pipe, method, PROMPTS[1:2]), x[1:2], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if hasattr(method, "ratio")])
def test_all_tokens_at_every_step_is_the_baseline_bit_for_bit(pipe, dense, name):
    off = type(METHODS[name])(**vars(METHODS[name]) | {"ratio": 1.0})
    assert torch.equal(tokens(pipe, off), dense)


@pytest.mark.parametrize("family", PIPELINES)
def test_without_guidance_in_bfloat16_on_a_tall_image(family):
    pipe = PIPELINES[family](torch.bfloat16)
    for method in METHODS.values():
        x = tokens(pipe, method, PROMPTS[:1], guidance=1.0, height=160, width=64)
        assert x.isfinite().all()
        assert x.std() > 0.1
