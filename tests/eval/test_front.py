"""The front against brute force and drawings small enough to see; its probabilities by simulation."""

import math

import numpy as np
import pytest

from fovea.eval.front import hypervolume, membership, on_front


def brute(cost, quality):
    k = range(len(cost))
    return [
        not any(
            cost[j] <= cost[i] and quality[j] >= quality[i] and (cost[j] < cost[i] or quality[j] > quality[i])
            for j in k
        )
        for i in k
    ]


def test_the_front_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    cost, quality = rng.integers(0, 5, (2, 200, 6)).astype(float)
    found = on_front(cost, quality)
    assert found.tolist() == [brute(c, q) for c, q in zip(cost, quality, strict=True)]


def test_equal_cells_share_their_place_and_infinity_leads():
    assert on_front([1, 1, 0.5], [2, 2, 1]).tolist() == [True, True, True]
    assert on_front([1, 1.2, 0.5], [math.inf, 30, 20]).tolist() == [True, False, True]


def test_area_by_hand():
    """20 dB from a half on, 30 from 0.8 on, over a worst of 10: 10 * 0.3 + 20 * 0.2."""
    assert hypervolume([0.8, 0.5], [30, 20], worst=10) == pytest.approx(7)
    assert hypervolume([0.8, 0.5, 0.9], [30, 20, 25], worst=10) == pytest.approx(7)  # a dominated cell
    assert hypervolume([0.8, 0.5], [5, 8], worst=10) == 0
    assert hypervolume([1.3], [30], worst=10) == 0
    both = hypervolume([[0.8, 0.5], [0.5, 0.8]], [[30, 20], [20, 30]], worst=10)
    assert both == pytest.approx([7, 7])


def test_a_cell_as_good_as_its_rival_is_on_the_front_half_of_the_time():
    """At the same cost, a difference of one standard error leads in 84 % of draws."""
    rng = np.random.default_rng(1)
    quality = rng.normal(size=(20000, 3)) / math.sqrt(2) + [0, 1, -50]
    cost = np.broadcast_to([0.5, 0.5, 0.9], quality.shape)
    assert membership(cost, quality) == pytest.approx([0.159, 0.841, 0], abs=0.01)
