"""Positional encodings at whole and at fractional places."""

import math

import pytest
import torch

from fovea.models import Grid, adapt
from tests.models.conftest import made
from tests.pipelines import lumina


def orders(b, n):
    return torch.rand(b, n, generator=torch.Generator().manual_seed(0)).argsort(1)


def test_grid_positions_are_row_major():
    assert Grid(2, 3).positions().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert Grid(2, 3).n == 6


def test_given_whole_positions_are_the_grid(pipe):
    """Also in another order, and for each image of a batch its own."""
    with adapt(pipe) as model:
        grid = Grid(5, 8)
        plain = model.encodings(grid).tables
        order = orders(2, grid.n)
        given = model.encodings(grid, grid.positions()[order]).tables
        for a, b in zip(plain, given, strict=True):
            assert torch.equal(a[0][order], b)


def test_fractional_positions_lie_between(pipe):
    with adapt(pipe) as model:
        grid = Grid(4, 4)
        at = torch.tensor([[[1.0, 2.0], [1.0, 2.25], [1.0, 2.5], [1.0, 3.0]]])
        for table in model.encodings(grid, at).tables:
            apart = (table - table[:, :1]).abs().flatten(2).sum(-1)[0]
            assert apart[0] == 0 < apart[1] < apart[2] < apart[3]


def test_formula_of_sd3_is_its_table_at_whole_positions():
    """Tables of a checkpoint are kept; between them there is the formula that made them."""
    pipe = made("sd3", torch.float32)
    with adapt(pipe) as model:
        grid = Grid(6, 4)
        table = model.encodings(grid).tables[0][0]
        near = model.encodings(grid, (grid.positions() + 1e-6)[None]).tables[0][0]
        torch.testing.assert_close(near, table, atol=1e-5, rtol=0)
        stock = pipe.transformer.pos_embed.cropped_pos_embed(12, 8)[0]
        assert torch.equal(table, stock)


def test_half_grid_of_lumina_is_the_full_one():
    """The linear factor makes a coarse cell's corner the same place on both grids."""
    with adapt(made("lumina", torch.float32)) as model:
        half, full = Grid(4, 6), Grid(8, 12)
        at = half.positions()[None]
        coarse = model.encodings(half, at).tables[0]
        fine = model.encodings(full, 2 * at).tables[0]
        torch.testing.assert_close(coarse, fine, atol=1e-6, rtol=0)


def test_velocity_at_mixed_places(pipe, flow_of):
    """Tokens may stand for cells of several sizes; their order is no part of the answer."""
    with adapt(pipe) as model:
        flow = flow_of(model, b=2)
        half = Grid(3, 4)
        at = torch.cat([half.positions(), half.positions()[:4] + 0.5])[None]  # (1, 16, 2)
        x = torch.randn(2, 16, flow.noise().shape[2], generator=torch.Generator().manual_seed(0))
        sigma = flow.sigmas()[0]
        v = flow.velocity(x, sigma, encodings=flow.encodings(at, half))
        order = orders(2, 16)
        shuffled = flow.encodings(at[0][order], half)
        pick = torch.arange(2)[:, None], order
        torch.testing.assert_close(
            flow.velocity(x[pick], sigma, encodings=shuffled), v[pick], atol=1e-5, rtol=1e-5
        )
        assert [w.k for w in flow.block_runs] == [16, 16]


def test_flux_ids():
    pipe = made("flux", torch.float32)
    with adapt(pipe) as model:
        cos, sin = model.encodings(Grid(3, 4)).tables
    ids = pipe._prepare_latent_image_ids(1, 3, 4, "cpu", torch.float32)
    expected = pipe.transformer.pos_embed(ids)
    assert torch.equal(cos[0], expected[0])
    assert torch.equal(sin[0], expected[1])


@pytest.mark.parametrize("sigma", [0.9, 0.2])
def test_watershed_of_lumina(sigma):
    """Below it the linear factor, above it the NTK factor, as the pipeline would choose."""
    pipe = lumina()
    with adapt(pipe) as model:
        grid = Grid(8, 16)
        assert len(model.encodings(grid).tables) == 1
        model.transformer.watershed = 0.5
        linear, ntk = model.encodings(grid).tables
        assert not torch.equal(linear, ntk)
        chosen = model.transformer.rope(model.transformer.time(torch.tensor(sigma)), (linear, ntk))
        assert torch.equal(chosen, linear if 1 - sigma < 0.5 else ntk)


def test_lumina_with_a_smaller_autoencoder():
    """LuminaPipeline takes every autoencoder for an x8 one; the adapter's images have the size asked for."""
    pipe = lumina()
    blocks = ("down_block_types", "up_block_types", "block_out_channels")
    smaller = {key: pipe.vae.config[key][:3] for key in blocks}
    pipe.register_modules(vae=pipe.vae.from_config(pipe.vae.config, **smaller).eval())
    with adapt(pipe) as model:
        grid = model.grid(64, 96)
        assert grid == (8, 12)
        assert model.decode(torch.zeros(1, 96, 16), grid).shape == (1, 3, 64, 96)
        assert model.transformer.scale(grid) == math.sqrt(64 * 96) / 128
