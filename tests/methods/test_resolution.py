"""methods/resolution.py: halving noise, splitting tokens, and noise that leaves each as it should be."""

from itertools import product

import pytest
import torch

from fovea.methods import ntdm
from fovea.methods.resolution import CHILDREN, coupled_noise, halve, split
from fovea.models.tokens import Grid


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(
    ("grid", "channels", "p"), [((4, 6), 16, 2), ((8, 2), 4, 2), ((2, 4), 3, 4), ((6, 4), 5, 1)]
)
def test_half_resolution_is_every_second_latent_pixel(grid, channels, p):
    rows, columns = grid
    x = torch.randn(3, rows * columns, channels * p * p)
    whole = x.view(3, rows, columns, channels, p, p)  # token (row, column), of (channel, row, column)
    half = halve(x, Grid(*grid), p * p).view(3, rows // 2, columns // 2, channels, p, p)
    for i, j in product(range(rows // 2 * p), range(columns // 2 * p)):
        expected = whole[:, 2 * i // p, 2 * j // p, :, 2 * i % p, 2 * j % p]
        assert torch.equal(half[:, i // p, j // p, :, i % p, j % p], expected)


@pytest.mark.parametrize("grid", [(3, 4), (4, 5)])
def test_an_odd_grid_cannot_be_halved(grid):
    with pytest.raises(ValueError, match=f"{grid[0]} x {grid[1]} tokens cannot be halved"):
        halve(torch.zeros(1, grid[0] * grid[1], 4), grid, 4)


def test_a_split_token_stands_in_the_four_corners_of_its_cell():
    x = torch.arange(12.0).view(2, 6, 1)
    at = Grid(2, 3).positions().expand(2, -1, -1)
    rows = torch.tensor([[1, 5], [0, 2]])
    new, places, parents = split(x, at, rows)
    kept = torch.tensor([[0, 2, 3, 4], [1, 3, 4, 5]])
    assert torch.equal(parents[:, :4], kept)
    assert torch.equal(parents[:, 4:], rows.repeat_interleave(4, 1))
    assert torch.equal(new[..., 0], parents + torch.tensor([[0], [6]]))
    for b in range(2):
        for i, parent in enumerate(parents[b].tolist()):
            offset = torch.tensor(CHILDREN[(i - 4) % 4] if i >= 4 else (0.0, 0.0))
            assert torch.equal(places[b, i], at[b, parent] + offset)


def test_splitting_none_or_all():
    x, at = torch.randn(2, 6, 3), Grid(2, 3).positions().expand(2, -1, -1)
    new, places, parents = split(x, at, torch.zeros(2, 0, dtype=torch.long))
    assert torch.equal(new, x)
    assert torch.equal(places, at)
    assert torch.equal(parents, torch.arange(6).expand(2, -1))
    new, places, parents = split(x, at, torch.arange(6).expand(2, -1))
    assert torch.equal(new, x.repeat_interleave(4, 1))
    assert torch.equal(parents, torch.arange(6).repeat_interleave(4).expand(2, -1))
    assert len({tuple(place) for place in places[0].tolist()}) == 24


@pytest.mark.parametrize("c", [0.0177, 6.317**-2, 0.2, 0.25])
@pytest.mark.parametrize("iid", [False, True])
def test_coupled_noise_is_the_symmetric_root_times_independent_noise(c, iid):
    kept, copies, channels = 5, 8, 7
    found = coupled_noise(generators(3), kept, copies, channels, c, iid)[0].double()
    z = torch.randn(kept + copies, channels, generator=generators(3)[0]).double()
    values, vectors = torch.linalg.eigh(torch.eye(4).double() - c)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    assert torch.allclose(root @ root, torch.eye(4).double() - c)
    expected = torch.cat(
        [z[:kept] * (1 if iid else (1 - c) ** 0.5), *(root @ four for four in z[kept:].split(4))]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_each_image_draws_its_own_noise():
    batch = coupled_noise(generators(1, 2, 3), 4, 8, 5, 0.02)
    assert torch.equal(batch[1:2], coupled_noise(generators(2), 4, 8, 5, 0.02))


def noise_after(end, c, split_):
    """Covariance of what is not the image in `refine` tokens, by matrices: a kept token, or four copies of
    one. Before, a token is end x1 + (1 - end) n with one n of variance 1."""
    start, scale = ntdm.restart(end, c)
    size = 4 if split_ else 1
    ones = torch.ones(size, size).double()
    added = torch.eye(size).double() - c * ones
    return start, scale**2 * (1 - end) ** 2 * ones + (1 - start) ** 2 * added


@pytest.mark.parametrize("end", [0.2, 0.3, 0.45])
@pytest.mark.parametrize("c", [0.0177, 6.317**-2, 0.25])
@pytest.mark.parametrize("split_", [True, False], ids=["copies", "kept"])
def test_after_a_restart_the_noise_of_every_token_is_that_of_the_new_time(end, c, split_):
    """The point of the coupling: copies share noise, and what is added undoes that exactly."""
    start, covariance = noise_after(end, c, split_)
    expected = (1 - start) ** 2 * torch.eye(len(covariance)).double()
    torch.testing.assert_close(covariance, expected, rtol=0, atol=1e-12)
