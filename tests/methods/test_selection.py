"""methods/selection.py: what is known of tokens, by hand, and what each rule makes of it."""

import pytest
import torch

from fovea.methods import RAS
from fovea.methods.selection import TokenHistory, bayer_ranks, score
from fovea.models.tokens import Grid
from tests.methods.gaussian import GaussianFlow

GRID = Grid(8, 8)


class GridFlow(GaussianFlow):
    """Whose tokens are a picture."""

    grid = GRID


def known():
    """Four tokens; 0 and 2 ran again at step 4, 2 at step 6: velocities go from 0 to the step's number."""
    missed = TokenHistory()
    v = lambda step, k: torch.full((1, k, 4), float(step))  # noqa: E731
    missed.update(1, v(1, 4), v(1, 4), v(1, 4), None)
    missed.update(4, v(4, 2), v(1, 2), v(2, 2), torch.tensor([[0, 2]]))
    missed.update(6, v(6, 1), v(4, 1), v(6, 1), torch.tensor([[2]]))
    return missed


def test_what_is_known_of_a_token_is_from_when_it_last_ran():
    """Norms over four channels are twice the difference."""
    missed = known()
    assert missed.last_step.tolist() == [[4, 1, 6, 1]]
    assert missed.change.tolist() == [[2 * 3 / 3, 0, 2 * 2 / 2, 0]]
    assert missed.error[0].tolist() == pytest.approx([2 * 2 / 3, 0, 0, 0])


@pytest.mark.parametrize(
    ("ageing", "expected"), [(0.0, [2, 0, 2, 0]), (1.0, [6, 0, 2, 0]), (2.0, [18, 0, 2, 0])]
)
def test_a_rule_is_multiplied_by_a_power_of_the_age(ageing, expected):
    found = score("change", ageing, known(), 7, Grid(2, 2), torch.zeros(1, 4, 4), 2)
    assert found.tolist() == [expected]


def test_neighbours_share_their_errors():
    missed = known()
    missed.last_step = missed.change = torch.zeros(1, 16)
    missed.error = torch.zeros(1, 16)
    missed.error[0, 0] = 4
    found = score("neighbours", 0.0, missed, 1, Grid(4, 4), torch.zeros(1, 16, 4), 2).view(4, 4)
    assert found[0, 0] == 1
    assert found[1, 1].item() == pytest.approx(4 / 9)
    assert (found[2:] == 0).all()
    assert (found[:, 2:] == 0).all()


def test_edges_are_where_the_image_changes():
    image = torch.zeros(1, 64, 16)
    image.view(1, 8, 8, 16)[:, :, 4:] = 1  # a step between columns 3 and 4
    found = score("edges", 0.0, known(), 7, GRID, image, 2).view(8, 8)
    assert (found[:, 3:5] > 0).all()
    assert (found[:, :3] == 0).all()


@pytest.mark.parametrize("grid", [Grid(8, 8), Grid(4, 6), Grid(16, 2)])
def test_any_first_share_of_a_dithered_grid_lies_evenly(grid):
    rank = bayer_ranks(grid, torch.device("cpu"))
    assert len(rank.unique()) == grid.n
    quarter = rank.argsort()[: grid.n // 4]
    cells = {(int(i) // grid.columns // 2, int(i) % grid.columns // 2) for i in quarter}
    assert len(cells) == grid.n // 4  # one in every 2 x 2


RULES = ["edges", "grid", "age", "change", "error", "neighbours"]


@pytest.mark.parametrize("stale", ["reuse", "taylor"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_runs_its_share_of_the_tokens(rule, stale):
    settings = {"steps": 12, "ratio": 0.25, "start": 2, "resets": (7,), "stale": stale}
    flow, steps = GridFlow(seeds=(0, 1, 2)), []
    x = RAS(**settings, selection=rule)(flow, on_step=lambda **step: steps.append(step["rows"]))
    assert flow.evaluated == [64 if i < 2 or i == 7 else 16 for i in range(12)]
    sparse = [rows for rows in steps if rows is not None]
    together = torch.stack(sparse[:4])
    ran = [len(together[:, image].unique()) for image in range(3)]
    assert ran == {"grid": [16] * 3, "age": [64] * 3}.get(rule, ran)
    alone = RAS(**settings, selection=rule)(GridFlow(seeds=(1,)))
    torch.testing.assert_close(alone[0], x[1], rtol=0, atol=1e-5)


def test_a_rule_is_none_of_ras_own():
    """No ends, no starvation."""
    settings = {"steps": 12, "ratio": 0.25, "start": 2, "selection": "error"}
    x = RAS(**settings)(GridFlow())
    assert torch.equal(x, RAS(**settings, starvation=3.0, high_ratio=0.0)(GridFlow()))
    with pytest.raises(ValueError, match="released"):
        RAS(**settings, as_released=True)
