"""FreqCa's bands against scipy's cosine transform, and what is forecast in each."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from fovea.methods import Steps
from fovea.methods.bands import Bands, LowPass
from fovea.methods.bases import hermite
from fovea.methods.caches import Forecast
from fovea.methods.forecast import Differences
from fovea.models.tokens import Grid
from tests.methods.caches.runs import PROMPTS, run
from tests.pipelines import PIPELINES

CPU = torch.device("cpu")
GRIDS = [Grid(16, 16), Grid(6, 10), Grid(1, 8), Grid(5, 3)]


def tokens(grid, seed=0):
    return torch.randn(2, grid[0] * grid[1], 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("cutoff", [0.0, 0.1, 0.37, 0.9, 1.0])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_low_pass_is_scipys_transform_with_high_frequencies_removed(grid, cutoff):
    x = tokens(grid)
    spectrum = dctn(x.double().numpy().reshape(2, *grid, 3), axes=(1, 2), norm="ortho")
    u, v = np.meshgrid(np.arange(grid[0]) / grid[0], np.arange(grid[1]) / grid[1], indexing="ij")
    radius = np.sqrt(u**2 + v**2)
    spectrum[:, radius > cutoff * radius.max() + 1e-9] = 0
    expected = idctn(spectrum, axes=(1, 2), norm="ortho").reshape(x.shape)
    np.testing.assert_allclose(LowPass(grid, cutoff, CPU)(x).numpy(), expected, atol=2e-6)


def test_on_a_square_the_share_is_that_of_the_indices():
    """A wave of index u along one side, of 64: the largest radius is 63 * sqrt(2), a tenth of it 8.9."""
    at = (torch.arange(64) + 0.5) / 64
    for u, kept in ((8, True), (9, False)):
        wave = torch.cos(torch.pi * u * at).repeat(64).view(1, 64 * 64, 1)
        assert LowPass(Grid(64, 64), 0.1, CPU)(wave).abs().max().item() > 0.9 or not kept
        torch.testing.assert_close(
            LowPass(Grid(64, 64), 0.1, CPU)(wave), wave if kept else torch.zeros_like(wave), atol=1e-5, rtol=0
        )


def test_low_frequencies_are_reused_and_high_ones_follow_their_series():
    """A level that grows stays; a checkerboard that grows does so by 2 s^2 a step ahead, of Hermite order 1,
    and its second difference is 0."""
    grid, s = Grid(8, 8), 0.71
    board = torch.tensor([1.0, -1.0]).repeat(4)
    board = (board[:, None] * board).reshape(1, 64, 1)
    forecast = Bands(LowPass(grid, 0.0, CPU), Differences(0), Differences(2, 0, hermite(s)))
    for step in range(3):
        forecast.update(step, (10.0 + step + (1 + 0.5 * step) * board,))
    found = forecast.predict(5)[0]
    torch.testing.assert_close(found, 12.0 + (2.0 + 0.5 * 2 * s**2 * 3) * board)


def test_as_authors_set_it():
    """Order 2 and 0.71 for what is high; three steps first, then every interval-th."""
    cache = Forecast("freqca", at="hidden", interval=5)
    assert sorted(cache.plan(18)) == [0, 1, 2, 7, 12, 17]
    flow = run("flux", Steps(2)).flow
    bands = cache.site(flow, 18)()
    assert (cache.cutoff, bands.low.order, bands.high.order) == (0.1, 0, 2)
    assert bands.high.coefficient(1, 1) == pytest.approx(2 * 0.71**2)


@pytest.mark.parametrize("at", ["hidden", "velocity"])
@pytest.mark.parametrize("family", PIPELINES)
def test_an_image_does_not_depend_on_its_batch(family, at):
    cache = Forecast("freqca", at=at)
    batch = run(family, cache, PROMPTS)
    assert batch.skipped() == [3, 4, 6, 7, 9, 10]
    for i, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(batch.x[i], run(family, cache, [prompt]).x[0], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("at", ["hidden", "velocity"])
def test_with_all_frequencies_low_it_is_reuse(at):
    found, reused = (run("flux", Forecast(b, at=at, cutoff=1.0)).x for b in ("freqca", "reuse"))
    torch.testing.assert_close(found, reused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at", ["modules", "attention"])
def test_outputs_of_modules_have_no_bands(at):
    with pytest.raises(ValueError, match=rf"basis=freqca, at={at}: .*choose at=hidden"):
        Forecast("freqca", at=at)
