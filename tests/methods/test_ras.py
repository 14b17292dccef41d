from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError

from fovea.methods import RAS, Baseline, Caching, Random
from fovea.methods.caches import TaylorOutput
from fovea.methods.ras_ablations import TokenState, velocity_without_others
from fovea.models import adapt, generator
from fovea.models.tokens import gather_tokens
from tests.methods.gaussian import GaussianFlow
from tests.pipelines import PIPELINES


def trace(method, flow=None):
    steps = []
    x = method(flow or GaussianFlow(), on_step=lambda **step: steps.append(step))
    return x, steps


@pytest.mark.parametrize("method", [RAS, Random])
def test_ratio_one_is_the_baseline_bit_for_bit(method):
    assert torch.equal(method(steps=12, ratio=1)(GaussianFlow()), Baseline(steps=12)(GaussianFlow()))


@pytest.mark.parametrize("method", [RAS, Random])
@pytest.mark.parametrize("ratio", [0.75, 0.5, 0.3, 0.125, 0.001])
def test_a_sparse_step_runs_the_rounded_ratio_of_the_tokens(method, ratio):
    flow = GaussianFlow(n=50)
    trace(method(steps=28, ratio=ratio, start=4, resets=(12, 20)), flow)
    k = max(round(ratio * 50), 1)
    assert flow.evaluated == [50 if i < 4 or i in (12, 20) else k for i in range(28)]


def test_resets_are_spaced_as_in_the_paper():
    assert set(range(4, 28)) - set(RAS().sparse_steps(28)) == {12, 20}


def test_a_falling_ratio_keeps_its_average():
    schedule = RAS(ratio=0.5, fall=1 / 16, every=4, resets=(12, 22))
    sparse = schedule.sparse_steps(30)
    left_out = [schedule.inactive_counts(4096, 30)[i] for i in sparse]
    assert left_out == sorted(left_out)
    assert sum(left_out) / len(sparse) == pytest.approx(2048, rel=1e-3)


@pytest.mark.parametrize("method", [RAS, Random])
def test_tokens_left_out_move_with_their_last_velocity(method):
    _, steps = trace(method(steps=10, ratio=0.25, start=3, resets=()))
    for before, step in pairwise(steps):
        if step["rows"] is not None:
            stale = torch.ones(step["v"].shape[:2], dtype=torch.bool).scatter(1, step["rows"], False)
            assert torch.equal(step["v"][stale], before["v"][stale])
            assert not torch.equal(step["v"][~stale], before["v"][~stale])


@pytest.mark.parametrize(
    ("high_ratio", "run"), [(1.0, slice(0, 16)), (0.0, slice(48, 64)), (0.5, slice(24, 40))]
)
def test_high_ratio_says_which_end_of_the_ranking_stays_behind(high_ratio, run):
    _, steps = trace(RAS(steps=6, ratio=0.25, start=5, resets=(), high_ratio=high_ratio))
    v = steps[4]["v"]  # (b, n, c): scored as std over channels, token = (channel, pixel)
    by_hand = torch.stack([v.view(2, 64, 4, 4)[..., p].std(-1) for p in range(4)]).mean(0)
    expected = by_hand.argsort(-1)[:, run].sort(-1).values
    assert torch.equal(steps[5]["rows"].sort(-1).values, expected)


@pytest.mark.parametrize("high_ratio", [0.0, 0.3, 1.0])
def test_strong_starvation_lets_every_token_run(high_ratio):
    """Also for tokens left out at the top of the ranking, where the released rule keeps them out for good."""

    def ran(**settings):
        _, steps = trace(RAS(steps=24, ratio=0.25, start=4, resets=(), high_ratio=high_ratio, **settings))
        return torch.cat([s["rows"] for s in steps if s["rows"] is not None], 1)

    assert all(len(rows.unique()) == 64 for rows in ran(starvation=5.0))
    if high_ratio == 1:
        assert all(len(rows.unique()) < 64 for rows in ran(as_released=True))


def test_released_counts():
    """The authors' schedules, from their formulas: static with truncation, and Lumina's falling one."""
    flow = GaussianFlow(n=100)
    trace(RAS(steps=28, ratio=0.7, high_ratio=0.3, as_released=True, resets=(12, 20)), flow)
    skipped = int((1 - 0.7) * 100)
    assert flow.evaluated[4] == 100 - int(skipped * (1 - 0.3)) - int(skipped * 0.3)
    lumina = GaussianFlow(n=4096, seeds=(0,))
    trace(
        RAS(steps=30, ratio=0.5, fall=1 / 16, every=4, resets=(12, 22), high_ratio=1, as_released=True),
        lumina,
    )
    shares = [k / 4096 for k in lumina.evaluated]
    assert shares[4:8] == [0.6875] * 4
    assert shares[16:20] == [0.5] * 4
    assert shares[28:] == [0.3125] * 2
    assert shares[12] == shares[22] == 1


@pytest.mark.parametrize("seeds", [(0,), (1,)])
@pytest.mark.parametrize("method", [RAS(steps=12, ratio=0.25), Random(steps=12, ratio=0.25)])
def test_an_image_does_not_depend_on_its_batch(method, seeds):
    assert torch.equal(method(GaussianFlow(seeds=(0, 1)))[list(seeds)], method(GaussianFlow(seeds=seeds)))


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": 0}, {"ratio": -1}, {"ratio": "abc"}, {"start": 0}, {"high_ratio": 2}, {"ratoi": 0.5},
     {"steps": 4, "start": 4}, {"steps": 20, "resets": (12, 22)}, {"selection": "mean"}, {"stale": "forget"},
     {"cache": TaylorOutput(order=2)}, {"text": "kept"}, {"text": "keep", "kv": False},
     {"starvation": float("inf")}, {"ageing": float("inf")}],  # inf times 0 is no score
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        RAS(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"starvation": 1.0},
        {"high_ratio": 0.0},
        {"ratio": 0.999, "high_ratio": 1.0},
        {"selection": "random"},
        {"selection": "oracle"},
    ],
)
def test_the_released_rule_is_refused_where_it_is_undefined(wrong):
    with pytest.raises(ValueError, match="released"):
        RAS(**{"steps": 12, "resets": (), "as_released": True} | wrong)(GaussianFlow())


@pytest.mark.parametrize("family", sorted(PIPELINES))
def test_without_keys_the_tokens_in_focus_are_a_picture_of_their_own(family):
    """Where all of the others are left out of attention, they may be anything."""
    with adapt(PIPELINES[family](torch.float32)) as model:
        flow = model.flow(["a fox", ""], generators=[generator("a fox", 0), generator("", 1)], steps=4)
        x, sigma = flow.noise(), flow.sigmas()[1]
        rows = torch.stack([torch.randperm(flow.grid.n)[:9] for _ in range(2)])
        picture = velocity_without_others(flow, x, sigma, rows)
        others = (
            x.clone()
            .fill_(7.0)
            .scatter(1, rows[..., None].expand(-1, -1, x.shape[-1]), gather_tokens(x, rows))
        )
        assert torch.equal(picture, velocity_without_others(flow, others, sigma, rows))
        kv = flow.new_kv()
        flow.velocity(x, sigma, kv=kv)
        assert not torch.allclose(picture, flow.velocity(x, sigma, kv=kv, rows=rows), rtol=1e-2)
        everyone = torch.arange(flow.grid.n).expand(2, -1)
        whole = velocity_without_others(flow, x, sigma, everyone)
        torch.testing.assert_close(whole, flow.velocity(x, sigma), rtol=1e-4, atol=1e-5)


class LineFlow(GaussianFlow):
    """A velocity that is a line in the number of the step, for each entry its own."""

    steps = 12

    def velocity(self, x, sigma, kv=None, rows=None, encodings=None, keep_text=False):
        i = self.sigmas(self.steps).tolist().index(sigma.item())
        v = self.line(i).expand(len(x), -1, -1)
        v = v if rows is None else v.gather(1, rows[..., None].expand(-1, -1, 16))
        self.evaluated.append(v.shape[1])
        return v

    def line(self, i):
        a, b = torch.randn(2, self.n, 16, generator=torch.Generator().manual_seed(7))
        return a + i * b


@pytest.mark.parametrize("cache", [None, TaylorOutput(3, 1, 2)])
@pytest.mark.parametrize("selection", ["std", "random"])
def test_a_line_is_forecast_exactly_for_tokens_left_out(selection, cache):
    flow = LineFlow()
    settings = {"ratio": 0.25, "start": 2, "resets": (), "selection": selection, "cache": cache}
    _, steps = trace(RAS(steps=12, stale="taylor", **settings), flow)
    for step in steps:
        torch.testing.assert_close(step["v"], flow.line(step["i"]).expand(2, -1, -1), rtol=0, atol=2e-5)
    _, reused = trace(RAS(steps=12, stale="reuse", **settings), LineFlow())
    assert max((step["v"] - flow.line(step["i"])).abs().max() for step in reused) > 1


@pytest.mark.parametrize(
    "cache", [TaylorOutput(3, 1, 2), TaylorOutput(4, 0, 3), TaylorOutput(2, 1, 1, "paper")]
)
@pytest.mark.parametrize("stale", ["reuse", "taylor"])
def test_at_ratio_one_with_a_cache_it_is_the_cache_bit_for_bit(cache, stale):
    ours, theirs = GaussianFlow(), GaussianFlow()
    x = RAS(steps=14, ratio=1, stale=stale, cache=cache)(ours)
    assert torch.equal(x, Caching(cache, steps=14)(theirs))
    assert ours.evaluated == theirs.evaluated


def test_a_step_that_is_forecast_runs_no_token():
    flow = GaussianFlow()
    cache = TaylorOutput(3, 1, 2)
    _, steps = trace(RAS(steps=12, ratio=0.5, start=4, resets=(9,), cache=cache), flow)
    runs = [i for i in range(12) if cache.runs(i)]
    assert runs == [0, 1, 3, 6, 9]
    assert [i for i, step in enumerate(steps) if step["rows"] is None or step["rows"].numel()] == runs
    assert flow.evaluated == [64, 64, 64, 32, 64]
    assert all(step["rows"].shape == (2, 0) for i, step in enumerate(steps) if i not in runs)


def test_keys_and_values_are_kept_for_the_next_step_that_is_evaluated():
    """Dense, dense, dense, forecast, sparse, forecast, dense, forecast."""
    ends = [(0, 0), (0, 0), (0, 0), (3, 1), (3, 1), (4, 0), (0, 0), (0, 0)]
    kept = TokenState(RAS(cache=TaylorOutput(2, 1, 2)), GaussianFlow())
    runs = [kept.runs(i) for i in range(8)]
    assert runs == [True, True, False, True, False, True, False, True]
    follows = [kept.sparse_follows(i, ends) for i in range(8)]
    assert [follows[i] for i in range(8) if runs[i]] == [False, True, True, False, False]


@pytest.mark.parametrize("ignored", [{}, {"starvation": 0.0}, {"starvation": 5.0}, {"high_ratio": 0.5}])
def test_random_scores_are_the_control_whatever_the_end_and_starvation(ignored):
    settings = {"steps": 14, "ratio": 0.3, "start": 3}
    x = RAS(**settings, selection="random", **ignored)(GaussianFlow())
    assert torch.equal(x, Random(**settings)(GaussianFlow()))
    assert not torch.equal(x, RAS(**settings, starvation=0.0)(GaussianFlow()))


class BentFlow(LineFlow):
    """A velocity whose every token has changed by an amount of its own at each step."""

    def line(self, i):
        generator = torch.Generator().manual_seed(11 + i)
        return torch.randn(self.n, 16, generator=generator) * torch.rand(self.n, 1, generator=generator)


@pytest.mark.parametrize("stale", ["reuse", "taylor"])
@pytest.mark.parametrize("ignored", [{"high_ratio": 1.0}, {"high_ratio": 0.0, "starvation": 5.0}])
def test_the_oracle_runs_the_tokens_whose_kept_velocity_is_most_wrong(stale, ignored):
    flow = BentFlow()
    settings = {"steps": 12, "ratio": 0.25, "start": 3, "resets": (), "stale": stale}
    _, steps = trace(RAS(**settings, selection="oracle", **ignored), flow)
    assert flow.evaluated == [64] * 3 + [64, 16] * 9  # the look at all tokens counts, and comes on top
    known = {}  # token of the first image to the last two steps it ran at
    for step in steps:
        i, true = step["i"], flow.line(step["i"])
        left = torch.zeros(64, 16)
        for token, past in known.items():
            left[token] = flow.line(past[-1])[token]
            if stale == "taylor" and len(past) > 1:
                slope = (flow.line(past[-1]) - flow.line(past[-2]))[token] / (past[-1] - past[-2])
                left[token] += slope * (i - past[-1])
        rows = range(64) if step["rows"] is None else step["rows"][0].tolist()
        if step["rows"] is not None:
            assert set(rows) == set((true - left).norm(dim=-1).topk(16).indices.tolist())
        for token in rows:
            known.setdefault(token, []).append(i)


def test_the_oracle_is_nearer_to_dense_than_any_ranking():
    """What it is for: an upper bound in practice, on a flow whose tokens differ in how much they change."""
    dense = Baseline(steps=12)(BentFlow())
    settings = {"steps": 12, "ratio": 0.25, "start": 3, "resets": ()}
    error = {
        name: (RAS(**settings, selection=name)(BentFlow()) - dense).norm().item()
        for name in ("oracle", "random", "std", "l2norm")
    }
    assert error["oracle"] < 0.8 * min(error[name] for name in ("random", "std", "l2norm"))


class TextFlow(GaussianFlow):
    """Which notes at what step it was told to keep the text."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def velocity(self, x, sigma, kv=None, rows=None, encodings=None, keep_text=False):
        self.kept.append(keep_text)
        return super().velocity(x, sigma, kv, rows, encodings)


@pytest.mark.parametrize("method", [RAS, Random])
@pytest.mark.parametrize("text", ["run", "keep"])
def test_the_text_is_kept_at_sparse_steps_alone(method, text):
    flow = TextFlow()
    method(steps=8, ratio=0.5, start=3, resets=(5,), text=text)(flow)
    assert flow.kept == [text == "keep" and i not in (0, 1, 2, 5) for i in range(8)]


@pytest.mark.parametrize("family", sorted(PIPELINES))
def test_a_kept_text_makes_another_image_except_where_it_never_runs(family):
    with adapt(PIPELINES[family]()) as model:

        def image(**settings):
            flow = model.flow(["a fox"], generators=[generator("a fox", 0)], height=64, width=96)
            x = RAS(steps=6, start=2, resets=(4,), **settings)(flow)
            return x, flow.flops()

        (run, cost), (kept, less) = image(), image(text="keep")
        assert torch.equal(run, kept) == (cost == less) == (family == "lumina")
        assert less <= cost
        assert torch.equal(image(ratio=1, text="keep")[0], image(ratio=1)[0])
