"""TeaCache against the published algorithm, written over the blocks of the stock pipeline."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fovea.methods.caches import TeaCache
from tests.methods.caches.brute import gate
from tests.methods.caches.runs import PROMPTS, STEPS, run, stock
from tests.pipelines import PIPELINES

LINE = (1.0, 0.0)
PUBLISHED = {
    "flux": (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861),
    "lumina": (393.76566581, -603.50993606, 209.10239044, -23.00726601, 0.86377344),
}


def algorithm(family, prompt, threshold, coefficients):
    """Tokens and the steps that were skipped."""
    pipe, rescale = PIPELINES[family](), np.poly1d(coefficients)

    def watched(step, block, inputs):
        return block.norm1(inputs["hidden_states"], emb=inputs["temb"])[0]

    def changed(now, before):
        return float(rescale(((now - before).abs().mean() / before.abs().mean()).item()))

    skipped = gate(pipe.transformer, threshold, STEPS, watched, changed)
    return stock(pipe, family, prompt), skipped


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("family", "threshold", "coefficients"),
    [
        ("flux", 0.3, LINE),
        ("flux", 0.6, LINE),
        ("flux", 1.0, PUBLISHED["flux"]),
        ("lumina", 0.2, LINE),
        ("lumina", 0.3, LINE),
        ("lumina", 0.6, PUBLISHED["lumina"]),
        ("sd3", 0.6, LINE),
        ("sd35", 0.6, (0.5, 0.4, 0.1)),
    ],
)
def test_equals_the_algorithm(family, threshold, coefficients, prompt):
    x, skipped = algorithm(family, prompt, threshold, coefficients)
    found = run(family, TeaCache(threshold, coefficients), [prompt])
    assert found.skipped() == skipped
    assert 0 < len(skipped) < STEPS - 2
    assert torch.equal(found.x[0], x)


@pytest.mark.parametrize(
    ("family", "threshold"), [("flux", 0.6), ("lumina", 0.3), ("sd3", 0.6), ("sd35", 0.6)]
)
def test_a_batch_is_its_images_though_they_decide_differently(family, threshold):
    batch = run(family, TeaCache(threshold, LINE), PROMPTS)
    alone = [run(family, TeaCache(threshold, LINE), [prompt]) for prompt in PROMPTS]
    assert len({tuple(batch.skipped(i)) for i in range(3)}) > 1
    assert any(0 < len(work.images) < 3 for work in batch.flow.block_runs)
    for i, one in enumerate(alone):
        assert batch.skipped(i) == one.skipped()
        torch.testing.assert_close(batch.x[i], one.x[0], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("change", [0.0, 0.07, 1.3])
def test_the_polynomial_has_its_highest_power_first(change):
    coefficients = PUBLISHED["flux"]
    assert TeaCache(0.3, coefficients).rescale(change) == pytest.approx(np.poly1d(coefficients)(change))


def test_first_and_last_step_always_run():
    assert run("flux", TeaCache(1e9, LINE)).skipped() == [*range(1, STEPS - 1)]


def test_without_coefficients_it_says_how_to_get_them():
    with pytest.raises(ValidationError, match=r"scripts\.calibrate"):
        TeaCache(0.3)
