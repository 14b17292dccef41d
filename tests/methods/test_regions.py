"""methods/regions.py: which tokens deserve full resolution first."""

from itertools import product
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fovea.methods import regions
from fovea.methods.regions import edges, gradient, scores, variance
from fovea.models.tokens import Grid

GRID = Grid(4, 6)


def flow_of(image=None, seeds=(0,), pixels=4):
    """A flow whose decoder gives `image`, (b, 3, h, w) in [-1, 1], whatever it is given."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return SimpleNamespace(generators=generators, pixels=pixels, decode=lambda x, grid, raw: image)


def test_edges_are_found_in_the_dark_half_too_where_the_released_code_is_blind():
    image = torch.full((1, 3, 16 * GRID.rows, 16 * GRID.columns), -0.9)
    image[..., 48:] = 0.2
    image[..., 20:28, 20:28], image[..., 36:44, 68:76] = -0.2, 0.9  # within one token each
    dark, light = (1, 1), (2, 4)
    ours, released = (edges(flow_of(image), None, GRID, rule)[0].view(*GRID) for rule in (False, True))
    assert ours[light] > 0
    assert ours[dark] > 0
    assert released[light] > 0
    assert released[dark] == 0


@pytest.mark.parametrize("as_released", [False, True])
def test_patch_sums_are_those_of_canny(as_released):
    image = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    image = image.repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = edges(flow_of(image), None, GRID, as_released)
    assert found.shape == (2, GRID.n)
    for b in range(2):
        red, green, blue = image[b].double().numpy()
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        grey = np.clip(grey if as_released else (grey + 1) / 2, 0, 1)
        canny = cv2.Canny((grey * 255).astype(np.uint8), 100, 200)
        assert canny.any()
        for token, (row, column) in enumerate(product(range(GRID.rows), range(GRID.columns))):
            patch = canny[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            assert found[b, token].item() == patch.sum(dtype=np.int64)


def windows(latent):
    """Every pixel's 3 x 3 neighbourhood, the border repeated: (b, channels, h, w, 3, 3)."""
    b, channels, h, w = latent.shape
    found = torch.empty(b, channels, h, w, 3, 3)
    for i, j, k, m in product(range(h), range(w), range(3), range(3)):
        found[:, :, i, j, k, m] = latent[:, :, min(max(i + k - 1, 0), h - 1), min(max(j + m - 1, 0), w - 1)]
    return found


def test_gradient_and_variance_by_brute_force():
    latent = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(1))
    near = windows(latent)
    weights = torch.tensor([1.0, 2.0, 1.0])
    across = ((near[..., 2] - near[..., 0]) * weights).sum(-1)
    down = ((near[..., 2, :] - near[..., 0, :]) * weights).sum(-1)
    torch.testing.assert_close(gradient(latent)[:, 0], (across**2 + down**2).sqrt().sum(1))
    expected = near.flatten(-2).var(-1, unbiased=False).sum(1)
    torch.testing.assert_close(variance(latent)[:, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("selection", ["latent_gradient", "variance"])
def test_a_token_is_scored_by_its_own_latent_pixels(selection):
    """A spot in the middle of one 4 x 4 token is seen there and nowhere else."""
    grid, latent = Grid(3, 4), torch.zeros(1, 2, 12, 16)
    latent[:, :, 5:7, 9:11] = 3.0
    tokens = (
        latent.unflatten(3, (4, 4)).unflatten(2, (3, 4)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    )
    found = scores(flow_of(pixels=16), tokens, grid, selection)[0]
    assert found.argmax() == 1 * 4 + 2
    assert (found > 1e-3).sum() == 1


@pytest.mark.parametrize("level", [0.0, 255.0, 256 * 255.0])
def test_ties_are_broken_by_each_images_own_generator(monkeypatch, level):
    """Also between many edge pixels, where 1e-6 would be lost in float32; by less than one edge pixel."""
    monkeypatch.setattr(regions, "edges", lambda *_: torch.full((2, GRID.n), level))
    x = torch.zeros(2, GRID.n, 16)
    found = scores(flow_of(seeds=(0, 1)), x, GRID, "edges")
    assert ((found - level).abs() <= 1).all()
    ties = scores(flow_of(seeds=(0, 1)), x, GRID, "random")
    torch.testing.assert_close(found - level, ties, rtol=0, atol=4e-3)
    assert len(found[0].unique()) > GRID.n // 2


def test_random_scores_are_each_images_own():
    x = torch.zeros(3, GRID.n, 16)
    batch = scores(flow_of(seeds=(0, 1, 2)), x, GRID, "random")
    assert torch.equal(batch[1:2], scores(flow_of(seeds=(1,)), x[:1], GRID, "random"))
