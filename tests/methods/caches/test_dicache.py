"""DiCache against the published algorithm, put over the blocks of the stock pipeline from outside."""

import pytest
import torch
from pydantic import ValidationError

from fovea.methods.caches import DiCache
from tests.methods.caches.brute import step_counter
from tests.methods.caches.runs import PROMPTS, STEPS, run, stock
from tests.pipelines import PIPELINES


def size(x):
    return x.abs().mean().item()


def algorithm(family, prompt, cache):
    """Tokens, the steps that were skipped, and the gammas that aligned them; one image."""
    pipe = PIPELINES[family]()
    dit = pipe.transformer
    blocks = dit.layers if family == "lumina" else dit.transformer_blocks
    now = step_counter(dit)
    skipped, gammas, ran, total, before = [], [], [], 0.0, {}

    def image(out):
        return out[1] if isinstance(out, tuple) else out

    def decide(x, probe):
        nonlocal total
        change = size(probe - before["probe"]) / size(before["probe"])
        if cache.error == "beyond_input":
            change = abs(change - size(x - before["x"]) / size(before["x"]))
        total += change
        if total < cache.threshold:
            skipped.append(now())
        else:
            total = 0.0

    def answer(x, probe):
        (older, older_probe), (newer, newer_probe) = (ran[-2:] * 2)[:2]
        if not cache.align or len(ran) == 1:
            return x + newer
        gamma = size(probe - x - older_probe) / size(newer_probe - older_probe)
        gammas.append(min(max(gamma, 1.0), 1.5))
        return x + older + gammas[-1] * (newer - older)

    def wrapped(i, forward):
        def call(*args, **kwargs):
            x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            if i >= cache.probe and now() in skipped:
                done = answer(before["x"], before["probe"]) if i == len(blocks) - 1 else x
                return (kwargs["encoder_hidden_states"], done) if family == "sd3" else done
            out = forward(*args, **kwargs)
            if i == 0:
                before["input"] = x
            if i == cache.probe - 1:
                if int(cache.retention * STEPS) < now() < STEPS - 1:
                    decide(before["input"], image(out))
                before.update(x=before["input"], probe=image(out))
            if i == len(blocks) - 1:
                ran.append((image(out) - before["x"], before["probe"] - before["x"]))
            return out

        return call

    for i, block in enumerate(blocks):
        block.forward = wrapped(i, block.forward)
    return stock(pipe, family, prompt), skipped, gammas


SETTINGS = [{}, {"probe": 2, "retention": 0.0}, {"error": "beyond_input", "retention": 0.0}, {"align": False}]
THRESHOLDS = {"sd3": (0.9, 0.9, 0.35, 0.9), "lumina": (0.2, 0.2, 0.005, 0.2)}


@pytest.mark.parametrize("i", range(len(SETTINGS)), ids=lambda i: str(SETTINGS[i]))
@pytest.mark.parametrize("family", THRESHOLDS)
def test_equals_the_algorithm(family, i):
    cache, met = DiCache(THRESHOLDS[family][i], **SETTINGS[i]), []
    for prompt in PROMPTS[:2]:
        x, skipped, gammas = algorithm(family, prompt, cache)
        found = run(family, cache, [prompt])
        assert found.skipped() == skipped
        assert 0 < len(skipped) < STEPS - 2
        torch.testing.assert_close(found.x[0], x, rtol=1e-5, atol=1e-5)
        met += gammas
    assert bool(met) == cache.align
    if cache.align:
        assert any(1 < gamma < 1.5 for gamma in met)


def test_a_skipped_step_costs_the_probe(family):
    found = run(family, DiCache(1e9, probe=2, retention=0.25))
    blocks = len(found.flow.transformer.blocks)
    assert found.blocks[0] == [blocks] * 4 + [2] * (STEPS - 5) + [blocks]


def test_residual_of_one_evaluation_is_added_as_it_is():
    """Two evaluations make a line; after the first alone there is none to follow."""
    aligned, plain = (run("sd3", DiCache(1e9, retention=0, align=align)) for align in (True, False))
    assert aligned.skipped() == [*range(1, STEPS - 1)]
    assert torch.equal(aligned.x, plain.x)


def test_a_probe_of_all_blocks_is_refused():
    with pytest.raises(ValueError, match=r"probe=3: must be less than the model's 3 blocks"):
        run("lumina", DiCache(probe=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": -1},
        {"retention": 2},
        {"probe": 0},
        {"error": "input"},
        {"reach": (1.5, 1)},
        {"reach": (1,)},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        DiCache(**wrong)
