"""methods/guidance.py: guidance on a part of the steps."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from fovea.methods import Baseline, LimitedGuidance
from fovea.models import adapt, generate, generator
from fovea.study.config.errors import Refused
from fovea.study.plan.nodes import check_fits, full_model
from tests.models.conftest import PROMPTS, flow_of, made, name, pipe  # noqa: F401
from tests.pipelines import stock_tokens, text_limit

STEPS = 4


def sampled(flow_of, pipe, method, guided=True, **options):  # noqa: F811
    """Tokens (b, n, c) and the flow that made them."""
    with adapt(pipe) as model:
        flow = flow_of(model, guided=guided, **options)
        return method(flow), flow


def by_hand(flow_of, pipe, velocity):  # noqa: F811
    """Euler's method with velocity(i, with the prompt, without it, guided) of the whole batch."""
    with adapt(pipe) as model:
        flow = flow_of(model)
        x, sigmas = flow.noise(), flow.sigmas()
        for i, (s, s_next) in enumerate(pairwise(sigmas)):
            prompted, without = flow.halves(x, s)
            v = velocity(i, prompted, without, flow.velocity(x, s))
            x = (x.float() + (s_next - s) * v).to(v.dtype)
    return x


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_never_guided_is_the_model_without_guidance_at_its_cost(flow_of, pipe):  # noqa: F811
    x, flow = sampled(flow_of, pipe, LimitedGuidance(stop=0.0))
    expected, alone = sampled(flow_of, pipe, Baseline(), guided=False)
    close(x, expected)
    if flow.cond.text == alone.cond.text:  # Lumina pads its prompts to the longest negative, too
        assert flow.flops() == alone.flops()


def test_the_halves_combined_are_the_velocity_bit_for_bit(flow_of, pipe):  # noqa: F811
    with adapt(pipe) as model:
        flow = flow_of(model)
        x, sigma = flow.noise(), flow.sigmas()[1]
        assert torch.equal(flow.guide(*flow.halves(x, sigma)), flow.velocity(x, sigma))


def test_it_is_guided_in_its_interval_alone(flow_of, pipe):  # noqa: F811
    x, flow = sampled(flow_of, pipe, LimitedGuidance(start=0.25, stop=0.75))
    close(x, by_hand(flow_of, pipe, lambda i, prompted, _, guided: guided if i in (1, 2) else prompted))
    dense, alone = (sampled(flow_of, pipe, Baseline(), guided=g)[1] for g in (True, False))
    if flow.cond.guided and flow.cond.text == alone.cond.text:
        evaluations = dense.flops() / STEPS, alone.flops() / STEPS
        assert flow.flops() == 2 * sum(evaluations)


def test_reuse_adds_what_guidance_last_added(flow_of, pipe):  # noqa: F811
    added = {}

    def velocity(i, prompted, _, guided):
        if i in (0, 2):
            added[0] = guided - prompted
            return guided
        return prompted + added[0]

    x, _ = sampled(flow_of, pipe, LimitedGuidance(stop=1.0, every=2, rest="reuse"))
    close(x, by_hand(flow_of, pipe, velocity))


def test_each_image_ends_its_guidance_when_its_velocities_are_alike(flow_of, pipe):  # noqa: F811
    """The threshold lies between the images' own similarities, so that some end at the first step."""
    with adapt(pipe) as model:
        flow = flow_of(model)
        halves = flow.halves(flow.noise(), flow.sigmas()[0])
        alike = F.cosine_similarity(*(v.double().flatten(1) for v in halves))
    least, middle, most = alike.sort().values.tolist()
    if not flow.cond.guided:
        assert least == pytest.approx(1)
        return
    method = LimitedGuidance(stop=1.0, similarity=(least + middle) / 2)
    x, batch = sampled(flow_of, pipe, method)
    guided = [sum(not run.prompted_only for run in batch.block_runs_of(j)) for j in range(3)]
    assert [count == 1 for count in guided] == [value > method.similarity for value in alike.tolist()]
    for j in range(3):
        single, flow = sampled(flow_of, pipe, method, b=1, first=j)
        close(single[0], x[j])
    assert most > least


@pytest.mark.parametrize(
    ("family", "option", "stop"), [("lumina2", "cfg_trunc_ratio", 0.5), ("zimage", "cfg_truncation", 0.5)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_pipelines_own_truncation_bit_for_bit(family, option, stop, dtype):
    """Lumina-Image 2.0 truncates at a share of the steps, Z-Image at a noise level: here, between two."""
    own = made(family, dtype)
    size: dict[str, Any] = {"height": 64, "width": 96, **text_limit(own)}
    with adapt(own) as model:
        levels = model.sigmas(STEPS, model.grid(64, 96)).tolist()
    value = stop if family == "lumina2" else 1 - (levels[1] + levels[2]) / 2
    options = {"num_inference_steps": STEPS, "guidance_scale": 3.0, option: value}
    expected = stock_tokens(own, PROMPTS[0], generator=[generator(PROMPTS[0], 0)], **size, **options)
    method = LimitedGuidance(steps=STEPS, stop=stop)
    found = generate(own, PROMPTS[:1], method=method, guidance=3.0, output="latent", **size)
    assert torch.equal(torch.stack(found), expected)


@pytest.mark.parametrize(
    ("settings", "steps", "guided"),
    [
        ({"stop": 0.25}, 50, [*range(12)]),
        ({"stop": 0.29}, 100, [*range(29)]),  # 0.29 * 100 is 28.999...
        ({"start": 0.2, "stop": 0.6, "every": 3}, 20, [4, 7, 10]),
        ({"stop": 1.0, "every": 2}, 5, [0, 2, 4]),
        ({"start": 0.5, "stop": 0.5}, 20, []),
    ],
)
def test_the_guided_steps(settings, steps, guided):
    method = LimitedGuidance(**settings)
    assert [*method.guided_steps(steps)] == guided
    assert method.saves(steps)


def test_it_saves_nothing_where_every_step_is_guided():
    assert not LimitedGuidance(stop=1.0).saves(20)
    assert not LimitedGuidance(start=0.01, stop=1.0).saves(20)  # not one step
    assert LimitedGuidance(stop=1.0, similarity=0.9).saves(20)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"start": 0.6, "stop": 0.5}, "cannot stop before it starts"),
        ({"stop": 1.5}, "less than or equal to 1"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"rest": "none"}, "'prompted' or 'reuse'"),
        ({"similarity": 2.0}, "less than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(wrong, why):
    with pytest.raises(ValidationError, match=why):
        LimitedGuidance(**wrong)


@pytest.mark.parametrize(("guidance", "refused"), [(1.0, True), (4.0, False)])
def test_a_model_without_guidance_is_refused_before_any_work(guidance, refused):
    node = {"_target_": "fovea.models.Checkpoint", "family": "sd3", "path": "assets/sd3_tiny"}
    _, checkpoint = full_model(node | {"height": 128, "width": 128, "guidance": guidance})
    if not refused:
        check_fits(LimitedGuidance(), checkpoint)
        return
    with pytest.raises(Refused, match=r"LimitedGuidance with model\.guidance=1: .* no guidance to leave out"):
        check_fits(LimitedGuidance(), checkpoint)


def test_a_pipeline_without_guidance_is_refused_where_images_are_generated():
    own, size = made("sd3", torch.float32), {"height": 64, "width": 64, "output": "latent"}
    method = LimitedGuidance(steps=2)
    with pytest.raises(ValueError, match=r"method=LimitedGuidance: .* no guidance to leave out; choose"):
        generate(own, PROMPTS[:1], method=method, guidance=1.0, **size)
    assert len(generate(own, PROMPTS[:1], method=method, guidance=3.0, **size)) == 1
