"""scripts/calibrate.py: ratios against diffusers' own, changes against hooks, and the lines in use."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from diffusers.hooks import MagCacheConfig

from fovea.methods.caches import MagCache, TeaCache
from fovea.models import adapt, generator
from scripts import calibrate
from tests import pipelines
from tests.pipelines import PIPELINES

PROMPTS = ["a fox", "two red apples on a table", "a map"]
STEPS = 8


@pytest.fixture(scope="module", params=["flux", "lumina"])
def saved(request, tmp_path_factory):
    """A stock pipeline on disk that does not say that its weights are random, and prompts; as arguments."""
    folder = pipelines.saved(PIPELINES[request.param](), tmp_path_factory.mktemp(request.param))
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    size = ["model.height=64", "model.width=96", f"model.steps={STEPS}", "model.guidance=3.5"]
    files = [f"model.path={folder}", f"prompts={folder / 'prompts.txt'}"]
    return [f"model={request.param}_tiny", *size, *files]


def test_the_lines_are_what_the_two_caches_take(saved):
    found = yaml.safe_load(calibrate.calibrate(saved))
    coefficients = TeaCache(**found["teacache"]).coefficients
    ratios = MagCache(**found["magcache"]).ratios
    assert (len(coefficients or ()), len(ratios or ())) == (calibrate.DEGREE + 1, STEPS)
    assert ratios[0] == 1.0


def test_neither_the_batch_nor_the_run_changes_them(saved):
    first, *others = (yaml.safe_load(calibrate.calibrate([*saved, f"batch={b}"])) for b in (1, 1, 3))
    assert others[0] == first
    assert others[1]["magcache"]["ratios"] == pytest.approx(first["magcache"]["ratios"], abs=2e-5)


def flow_of(model, family, prompts):
    limits = {} if family == "lumina" else {"max_sequence_length": 16}
    options = {"height": 64, "width": 96, "steps": STEPS, "guidance": 3.5} | limits
    return model.flow(prompts, generators=[generator(p, 0) for p in prompts], **options)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ratios_are_those_of_diffusers_own_calibration(prompt, capsys):
    pipe = PIPELINES["flux"]()
    with adapt(pipe) as model:
        ratios = calibrate.observe(flow_of(model, "flux", [prompt])).ratios[:, 0].tolist()
    pipe.transformer.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=STEPS))
    size = {"height": 64, "width": 96, "max_sequence_length": 16, "guidance_scale": 3.5}
    pipe(prompt, num_inference_steps=STEPS, generator=generator(prompt, 0), output_type="latent", **size)
    printed = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("[1.0"))
    assert [1.0, *ratios] == pytest.approx(json.loads(printed), abs=1e-6)


def changes(tensors):
    """Relative L1, of the images of a batch of three and both halves of their guidance, step by step."""
    return [
        ((now[i::3] - before[i::3]).abs().sum() / before[i::3].abs().sum()).item()
        for before, now in pairwise(tensors)
        for i in range(3)
    ]


@pytest.mark.parametrize("family", PIPELINES)
def test_changes_are_those_seen_from_outside(family):
    """What the first attention takes in and the last projection puts out."""
    pipe, taken, put = PIPELINES[family](), [], []
    with adapt(pipe) as model:
        block, dit = model.blocks[0], pipe.transformer
        attention = block.attn1 if family == "lumina" else block.attn
        last = dit.norm_out if family == "lumina" else dit.proj_out
        attention.register_forward_pre_hook(
            lambda _m, _a, inputs: taken.append(inputs["hidden_states"]), with_kwargs=True
        )
        last.register_forward_hook(lambda _m, _a, out: put.append(out))
        seen = calibrate.observe(flow_of(model, family, PROMPTS))
    if family == "lumina":  # (row, column, channel): the second half of the channels is the learned sigma
        put = [out.unflatten(-1, (4, -1))[..., :4] for out in put]
    np.testing.assert_allclose(seen.changes, list(zip(changes(taken), changes(put), strict=True)), rtol=1e-4)
    assert len(seen.changes) == 3 * (STEPS - 1)


def test_a_polynomial_is_found_again():
    coefficients = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861]
    x = np.linspace(0.02, 0.3, 40)
    found, explained = calibrate.fit(list(zip(x, np.polyval(coefficients, x), strict=True)))
    assert found == pytest.approx(coefficients, rel=1e-6)
    assert explained == pytest.approx(1)
    y = [(0.1 * i, (-1.0) ** i) for i in range(40)]
    assert calibrate.fit(y)[1] < 0.1


def test_the_norms_are_per_token():
    """Two images, two halves of guidance; the mean of ratios is not the ratio of means."""
    before, now = torch.ones(4, 2, 3), torch.ones(4, 2, 3)
    now[0, 0] *= 5  # image 0, first half, one of two tokens
    now[3] *= 2  # image 1, second half
    assert calibrate.magnitude(now, before, 2).tolist() == pytest.approx([2.0, 1.5])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["model=sd3", "model.weights=random"], "nothing to measure"),
        (["model=lumina_tiny", "n=1", "model.steps=3"], "raise n"),
        (["model=nix"], "no such model"),
        (["model.path=/nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, why, capsys):
    assert calibrate.main(arguments) == 2
    assert why in capsys.readouterr().err
