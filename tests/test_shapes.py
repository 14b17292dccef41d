"""Shapes and types of methods, models and eval are checked as the tests run (jaxtyping's import hook, with
beartype: see pyproject.toml)."""

import jaxtyping
import pytest
import torch

from fovea.eval.fidelity import PSNR, blurred
from fovea.eval.statistics import pooled
from fovea.methods.tokens import scatter_tokens
from fovea.models.tokens import Grid, gather_tokens, pack, unpack

ROWS = torch.tensor([[0, 2], [1, 3]])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: scatter_tokens(x, ROWS, torch.zeros(2, 3, 5)),  # three values for two rows
        lambda x: scatter_tokens(x, ROWS, torch.zeros(2, 2, 4)),  # of other channels
        lambda x: gather_tokens(x, ROWS[0]),  # rows of no image
        lambda x: gather_tokens(x, ROWS.float()),
        lambda x: pack(x, 2),
        lambda x: unpack(x, (2, 2), 2),  # a tuple is no grid
    ],
)
def test_a_wrong_shape_is_refused_where_it_enters(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call(torch.zeros(2, 4, 5))


@pytest.mark.parametrize(
    "call",
    [
        lambda: PSNR().compute("no batch"),
        lambda: blurred([0.0]),
        lambda: pooled([1.0], pool="median"),
        lambda: pooled({1.0}),
    ],
)
def test_metrics_and_statistics_refuse_what_is_of_another_type(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_right_ones_pass():
    assert pooled([1, 2]) == pooled((1.0, 2.0)) == 1.5
    x = torch.zeros(2, 4, 8)
    assert gather_tokens(scatter_tokens(x, ROWS, torch.ones(2, 2, 8)), ROWS).all()
    assert torch.equal(pack(unpack(x, Grid(2, 2), 2), 2), x)
