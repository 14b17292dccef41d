"""What every method keeps to, on every family: each conf/method/*.yaml is tested by being there, and each
conf/method/cache/*.yaml under `Caching`.

caches/test_every_cache.py has every cache class crash, and compares each image of a batch. Here caches do not
crash again, and only the first image of their batches is made alone."""

from functools import cache as once
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from fovea.eval.speed import count_flops
from fovea.methods import RALU, Caching, Lift
from fovea.models import adapt, generator
from fovea.models.flow import Flow
from tests.pipelines import PIPELINES, default_dtype, text_limit

CONF = Path("conf").resolve()
STEPS = 7
PROMPTS = ["a fox", "two red apples on a table", ""]
MODEL = {
    "steps": STEPS,
    "magcache": {"ratios": [1.0, 0.99, 1.01, 0.98]},
    "teacache": {"coefficients": [1.0, 0.0]},
    "ralu": {"preset": "flux_7x"},
    "jit": {"steps": STEPS},
    "mrflow": {"steps": STEPS, "low": 5},
    "multistep": {
        "of": STEPS,
        "twofold": {"nodes": [0, 2, 4], "weights": [[1.0], [-0.5, 1.5], [0.1, -0.6, 1.5]]},
    },
}  # what a model's file holds for its methods
EASY = {"threshold": 9.0}  # random weights change more from step to step than trained ones
DENSE = ("baseline", "steps")
ALL_TOKENS = (*DENSE, "guidance")  # every token at every step


def configured(*overrides):
    """The method of the composed config, its nested nodes too."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[*overrides, f"+model={MODEL}".replace("'", "")])
        return instantiate(config.method, _convert_="all")


def every():
    """Methods by name, caches as caching/NAME."""
    for path in sorted(CONF.glob("method/*.yaml")):
        yield path.stem, configured(f"+method={path.stem}")
    yield "ras/alone", configured("+method=ras", "method.kv=false")
    for path in sorted(CONF.glob("method/cache/*.yaml")):
        method = configured("+method=caching", f"method/cache={path.stem}")
        easy = {key: value for key, value in EASY.items() if hasattr(method.cache, key)}
        yield f"caching/{path.stem}", Caching(type(method.cache)(**vars(method.cache) | easy), STEPS)


METHODS = dict(every())
NOT_CACHES = [name for name in METHODS if not name.startswith("caching/")]


class Run(NamedTuple):
    """Final tokens (b, n, c), the flow that made them, what `on_step` was told, and how long the flow's log
    was then; counted: FLOPs by torch."""

    x: torch.Tensor
    flow: Flow
    steps: list[dict]
    logged: list[int]
    counted: int


def run(pipe, method, prompts=PROMPTS, count=False, height=64, width=96, guidance=4.0) -> Run:
    limits = text_limit(pipe)
    if type(pipe).__name__ == "FluxPipeline" and guidance > 1:
        limits["true_cfg_scale"] = 2.0
    steps, logged, counted = [], [0], 0
    with adapt(pipe) as model:
        generators = [generator(prompt, 0) for prompt in prompts]
        size = {"height": height, "width": width, "guidance": guidance}
        flow = model.flow(prompts, generators=generators, **size, **limits)

        def on_step(**step):
            steps.append(step)
            logged.append(len(flow.block_runs))

        if count:
            x, counted = count_flops(lambda: method(flow, on_step=on_step))
        else:
            x = method(flow, on_step=on_step)
    return Run(x, flow, steps, logged, counted)


def stock(pipe):
    """The pipeline's own call."""
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"}
    return pipe(prompt=PROMPTS[0], generator=generator(PROMPTS[0], 0), **options, **text_limit(pipe)).images


def parts(pipe):
    """What a method might leave behind: forwards, hooks and processors of the modules."""
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    return [
        (
            vars(m).get("forward"),
            getattr(m, "processor", None),
            *(list(vars(m)[hook].values()) for hook in hooks),
        )
        for m in pipe.transformer.modules()
    ]


def ran(step, n):
    """Tokens that ran at a step, for the first image, as `on_step` tells it."""
    if step.get("density") is not None:
        return step["density"][0].sum().item()
    return n if step["rows"] is None else step["rows"].shape[1]


@pytest.fixture(scope="module", params=PIPELINES)
def pipe(request):
    return PIPELINES[request.param]()


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def before(pipe):
    """What the pipeline's own call gives before anything else ran on it."""
    return stock(pipe)


@pytest.fixture(scope="module")
def first(pipe, before):
    """A method's first run on the three prompts."""
    return once(lambda name: run(pipe, METHODS[name]))


def test_the_trace_says_what_ran(first, name):
    x, flow, steps, logged, _ = first(name)
    n = flow.grid.n
    assert [step["i"] for step in steps] == list(range(len(steps)))
    assert torch.equal(steps[-1]["x"], x)
    assert x.shape[:2] == (3, n)
    assert all(step["v"].shape == step["x"].shape for step in steps)
    levels = [step["sigma"].item() for step in steps]
    assert levels[0] == 1
    assert isinstance(METHODS[name], RALU | Lift) or levels == sorted(levels, reverse=True)
    for step in steps:
        if step["rows"] is not None:
            assert all(len(own.unique()) == len(own) for own in step["rows"])
    executed = [flow.blocks(0, first) - flow.blocks(0, last) for first, last in pairwise(logged)]
    shares = [count / len(flow.transformer.blocks) for count in executed]
    told = sum(ran(step, n) * share for step, share in zip(steps, shares, strict=True))
    assert told == pytest.approx(flow.tokens(0), abs=1e-6)
    assert (flow.tokens(0) < n * len(steps)) == (name not in ALL_TOKENS)


@pytest.fixture(scope="module")
def alone(pipe):
    """A method's run on the first prompt, its FLOPs counted."""
    return once(lambda name: run(pipe, METHODS[name], PROMPTS[:1], count=True))


def test_its_flops_are_those_counted(alone, name):
    found = alone(name)
    assert found.flow.flops() == pytest.approx(found.counted, rel=5e-3)


def test_an_image_does_not_depend_on_its_batch(pipe, first, alone, name):
    batch = first(name)
    others = [run(pipe, METHODS[name], [prompt]) for prompt in PROMPTS[1:] if name in NOT_CACHES]
    for i, found in enumerate([alone(name), *others]):
        torch.testing.assert_close(found.x[0], batch.x[i], rtol=1e-5, atol=2e-5)
        assert found.flow.tokens() == batch.flow.tokens(i)


@pytest.mark.parametrize("name", METHODS)
def test_torchs_default_dtype_changes_no_image(name):
    """Neither draws nor noise levels are rounded where a user has made half precision the default."""
    pipe = PIPELINES["sd3"]()
    expected = run(pipe, METHODS[name], PROMPTS[:1]).x
    with default_dtype(torch.float16):
        assert torch.equal(run(pipe, METHODS[name], PROMPTS[:1]).x, expected)


@pytest.mark.parametrize("name", NOT_CACHES)
def test_nothing_stays_behind_even_after_a_crash_within_a_step(pipe, before, first, name):
    expected, own, calls = first(name).x, parts(pipe), 0

    def crash(*_):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with adapt(pipe) as model:
        hook = model.blocks[0].register_forward_pre_hook(crash)
    with pytest.raises(KeyboardInterrupt):
        run(pipe, METHODS[name])
    hook.remove()
    assert torch.equal(run(pipe, METHODS[name]).x, expected)
    assert parts(pipe) == own
    assert torch.equal(stock(pipe), before)


@pytest.mark.parametrize("off_name", [name for name in METHODS if name not in DENSE])
def test_off_is_the_baseline_bit_for_bit(pipe, first, off_name):
    x = run(pipe, off(METHODS[off_name])).x
    assert torch.equal(x, first("baseline").x)


def off(method):
    """The method with the settings that leave nothing of it."""
    if isinstance(method, Caching):
        return Caching(off(method.cache), STEPS)
    one_stage = {"stages": (STEPS,), "cache": None, "last": None}
    if isinstance(method, RALU):
        return RALU(**vars(method) | one_stage)
    steps = {"steps": STEPS} if hasattr(method, "steps") else {}
    return type(method)(**vars(method) | method.off | steps)


@pytest.mark.parametrize("family", PIPELINES)
def test_without_guidance_in_bfloat16_on_a_tall_image(family):
    pipe = PIPELINES[family](torch.bfloat16)
    for method in METHODS.values():
        x, flow, *_ = run(pipe, method, PROMPTS[:1], guidance=0.0, height=160, width=64)
        assert x.dtype == flow.transformer.latent_dtype
        assert x.isfinite().all()
        assert x.float().std() > 0.1
