"""EasyCache against the published algorithm, written around the forward of the stock pipeline."""

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import Caching
from fovea.methods.caches import EasyCache
from tests.methods.caches.runs import PROMPTS, STEPS, run, stock
from tests.methods.gaussian import GaussianFlow
from tests.pipelines import PIPELINES


def mean(x):
    return x.abs().mean().item()


def algorithm(family, prompt, threshold, warmup, comfyui=False):
    """Tokens and the steps that were skipped; one image, without classifier-free guidance."""
    pipe = PIPELINES[family]()
    forward, step, skipped = pipe.transformer.forward, [-1], []
    ran, before, rate, total = [], [None], [None], [0.0]

    def answer(*args, **kwargs):
        step[0] += 1
        x = kwargs["hidden_states"]
        if warmup <= step[0] < STEPS - 1 and rate[0] is not None:
            total[0] += rate[0] * mean(x - before[0]) / mean(ran[-1][1])
            if total[0] < threshold:
                skipped.append(step[0])
                before[0] = before[0] if comfyui else x
                return (x + (ran[-1][1] - ran[-1][0]),)
        out = forward(*args, **kwargs)[0]
        if ran:
            rate[0] = mean(out - ran[-1][1]) / mean(x - ran[-1][0])
        ran.append((x, out))
        before[0], total[0] = x, 0.0
        return (out,)

    pipe.transformer.forward = answer
    return stock(pipe, family, prompt, 1.0 if family != "flux" else None), skipped


@pytest.mark.parametrize("comfyui", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS[:2])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_equals_the_algorithm(family, prompt, comfyui):
    threshold = 0.8 if comfyui else 0.5
    x, skipped = algorithm(family, prompt, threshold, 2, comfyui)
    cache = EasyCache(threshold, 2 / STEPS, rule="comfyui" if comfyui else "paper")
    found = run(family, cache, [prompt], guidance=1.0 if family != "flux" else None)
    assert found.skipped() == skipped
    assert 0 < len(skipped) < STEPS - 3
    assert torch.equal(found.x[0], x)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_skipped_step_costs_nothing_and_others_in_the_batch_run(family):
    found = run(family, EasyCache(0.3 if family == "lumina" else 0.5), PROMPTS)
    assert len({tuple(found.skipped(i)) for i in range(3)}) > 1
    assert any(0 < len(work.images) < 3 for work in found.flow.block_runs)
    for image in range(3):
        ran = STEPS - len(found.skipped(image))
        assert len(found.flow.block_runs_of(image)) == ran


class StraightFlow(GaussianFlow):
    """One velocity everywhere."""

    device = torch.device("cpu")

    def velocity(self, x, sigma, encodings=None, images=None):
        self.evaluated.append(len(x))
        return torch.ones_like(x if images is None else x[images])


def test_on_a_straight_path_the_kept_velocity_is_exact_and_the_kept_difference_is_not():
    dense = Caching(EasyCache(0.0), 10)(StraightFlow())
    kept = StraightFlow()
    assert torch.equal(Caching(EasyCache(0.05, keep="velocity"), 10)(kept), dense)
    assert len(kept.evaluated) == 3  # two to know the rate, and the last
    assert not torch.allclose(Caching(EasyCache(0.05), 10)(StraightFlow()), dense, atol=0.1)


@pytest.mark.parametrize(
    "wrong", [{"threshold": -1}, {"retention": 2}, {"rule": "sd.cpp"}, {"keep": "nothing"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        EasyCache(**wrong)
