"""scripts/calibrate.py: ratios against diffusers' own, changes against hooks, and the lines in use."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers.hooks.mag_cache import MagCacheConfig

from fovea.methods import RAS
from fovea.methods.caches import MagCache, TeaCache
from fovea.models import adapt, generator
from fovea.models.tokens import gather_tokens
from scripts import calibrate
from tests import pipelines
from tests.methods.caches.runs import last_module
from tests.pipelines import PIPELINES, text_limit

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
    assert ratios is not None
    assert (len(coefficients or ()), len(ratios)) == (calibrate.DEGREE + 1, STEPS)
    assert ratios[0] == 1.0
    assert RAS(**found["ras"]).high_ratio in (0, 1)


def test_neither_the_batch_nor_the_run_changes_them(saved):
    first, *others = (yaml.safe_load(calibrate.calibrate([*saved, f"batch={b}"])) for b in (1, 1, 3))
    assert others[0] == first
    assert others[1]["magcache"]["ratios"] == pytest.approx(first["magcache"]["ratios"], abs=2e-5)


def flow_of(model, prompts):
    options = {"height": 64, "width": 96, "steps": STEPS, "guidance": 3.5} | text_limit(model.pipeline.pipe)
    return model.flow(prompts, generators=[generator(p, 0) for p in prompts], **options)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ratios_are_those_of_diffusers_own_calibration(prompt, capsys):
    pipe = PIPELINES["flux"]()
    with adapt(pipe) as model:
        ratios = calibrate.observe(flow_of(model, [prompt])).ratios[:, 0].tolist()
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
        flow = flow_of(model, PROMPTS)
        first, last = model.transformer.sites("attention")[0][0], last_module(flow)
        first.register_forward_pre_hook(
            lambda _m, given, named: taken.append(named.get("hidden_states", *given)), with_kwargs=True
        )
        last.register_forward_hook(lambda _m, _a, out: put.append(out))
        seen = calibrate.observe(flow)
    passes, n = len(flow.cond.passes), flow.grid.n
    image = slice(-n, None) if model.transformer.text_first else slice(n)  # text may pass the same modules
    taken, put = (
        [torch.cat([out[:, image] for out in told[i : i + passes]]) for i in range(0, len(told), passes)]
        for told in (taken, put)
    )
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


class Drifting:
    """A flow whose tokens change the more, the more (end 0) or the less (end 1) they deviate, whatever the
    state."""

    pixels = 4

    def __init__(self, end):
        generator = torch.Generator().manual_seed(3)
        spread = torch.linspace(1, 2, 64).view(1, 64, 1)
        start, drift = torch.randn(2, 2, 64, 16, generator=generator) * spread
        self.velocities = [
            start + drift * i * (spread**4 if end == 0 else spread**-8) / 50 for i in range(12)
        ]

    def sigmas(self):
        return torch.linspace(1, 0, 13)

    def new_kv(self):
        """No cache: nothing is evaluated."""

    def velocity(self, x, sigma, kv=None, rows=None, keep_text=False):
        v = self.velocities[int((self.sigmas() - sigma).abs().argmin())]
        return v if rows is None else gather_tokens(v, rows)


@pytest.mark.parametrize("end", [0, 1])
def test_the_end_that_changes_most_is_to_run(end):
    flow: Any = Drifting(end)
    noise = torch.zeros(2, 64, 16)
    image = noise - sum(flow.velocities) / 12
    found = calibrate.lowest_advantage(flow, [noise, *[image] * 12])
    assert (found > 0).tolist() == [end == 1] * 2
    settings: dict[str, Any] = {"ratio": 0.5, "starvation": 0.1}
    low, high = (
        (RAS(**settings, high_ratio=h).sample(flow, noise, flow.sigmas()) - image).square().mean((1, 2))
        for h in (1, 0)
    )
    torch.testing.assert_close(found, 10 * (high / low).log10())
    assert end_of(found) == end


def end_of(advantage):
    entry = calibrate.ras_end(advantage)
    assert entry is not None
    return entry.settings["high_ratio"]


def test_the_papers_end_stands_where_they_cannot_be_told_apart():
    assert end_of(torch.tensor([-3.0, 2.9, -0.1])) == 1
    assert end_of(torch.tensor([-3.0, -2.9, -3.1])) == 0
    assert end_of(torch.tensor([-3.0])) == 1  # one image has no error


def test_without_a_sparse_step_there_is_no_end():
    flow: Any = Drifting(0)
    zeros = torch.zeros(2, 64, 16)
    assert calibrate.ras_end(calibrate.lowest_advantage(flow, [zeros] * 5)) is None


@pytest.mark.parametrize("model", ["lumina", "sd3", "flux"])
def test_the_embedded_models_have_the_end_found_on_them(model):
    """As measured; `python -m scripts.recalibrate model=NAME_tiny n=8` writes it."""
    text = (Path("conf/model") / f"{model}_tiny.yaml").read_text()
    assert yaml.safe_load(text)["ras"]["high_ratio"] == 0
    found = re.findall(r"# -(\S+) dB nearer .* lowest run, standard error (\d\.\d)", text)
    worse, error = map(float, found[0])
    assert worse > 2 * error
    for page in ("docs/results.md", "CHANGELOG.md"):
        said = " ".join(Path(page).read_text("utf-8").split())
        assert f"{worse:g} ± {error:g} dB on `{model}_tiny`" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["model=sd3", "model.weights=random"], "nothing to measure"),
        (["model=lumina_tiny", "n=1", "model.steps=3"], "raise n or model.steps"),
        (["model=lumina_tiny", "model.steps=1"], "1 steps: too few changes between steps"),
        (["model=nix"], "no such model"),
        (["model.path=/nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, why, capsys):
    assert calibrate.main(arguments) == 2
    assert why in capsys.readouterr().err
