"""study/run/trace.py, observe.py: what is kept of a trajectory, on tiny pipelines."""

import json
import shutil
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import run
from fovea.methods import RALU, RAS, Baseline, Steps
from fovea.methods.resolution import split
from fovea.models import adapt, generator
from fovea.models.tokens import Grid, pack, unpack
from fovea.study.run.observe import Observer, laid_out, layout
from fovea.study.run.trace import Trace, path, read, save
from fovea.study.store import Store
from tests.pipelines import PIPELINES, text_limit

PROMPTS = ["a fox", "two red apples on a table", "", "a tiger"]
STEPS = 6
MIXED = RALU(stages=(2, 2, 2), ends=(0.3, 0.5, 1.0), shifts=(3.0, 2.0, 2.0), c=0.02, ratio=0.4)


@pytest.fixture(scope="module", params=PIPELINES)
def pipe(request):
    return PIPELINES[request.param]()


@pytest.fixture(scope="module")
def lumina():
    return PIPELINES["lumina"]()


def observed(pipe, method, prompts=PROMPTS, dense=None, keep=False):
    """The final tokens and who watched them come about."""
    with adapt(pipe) as model:
        flow, again = (
            model.flow(
                prompts,
                generators=[generator(p, 0) for p in prompts],
                height=64,
                width=96,
                steps=STEPS,
                **text_limit(pipe),
            )
            for _ in range(2)
        )
        seen = Observer(flow, again.noise(), dense, keep)
        return method(flow, on_step=seen), seen


@pytest.fixture(scope="module")
def dense(pipe):
    x, seen = observed(pipe, Baseline(), keep=True)
    return x, seen.trajectory()


def traces(pipe, method, dense, prompts=PROMPTS):
    x, seen = observed(pipe, method, prompts, dense[1])
    return x, list(seen.traces(prompts).values())


# the layout


@pytest.mark.parametrize("grid", [Grid(4, 6), Grid(8, 2)])
@pytest.mark.parametrize("k", [0, 1, 3, None])
def test_every_place_is_the_token_that_covers_it(grid, k):
    """Pixel by pixel, from tokens that a split has put in its own order."""
    half, p, b = Grid(grid.rows // 2, grid.columns // 2), 2, 3
    k = half.n if k is None else k
    rows = torch.stack([torch.randperm(half.n)[:k].sort().values for _ in range(b)])
    x, at, _ = split(torch.zeros(b, half.n, 12), half.positions().expand(b, -1, -1), rows)
    x = torch.randn(x.shape)
    found = unpack(laid_out(x, (where := layout(at, grid)), grid, p * p), grid, p)  # (b, 3, height, width)
    told = where.level.unflatten(1, grid)
    covered = torch.zeros(b, grid.rows * p, grid.columns * p)
    for i in range(b):
        coarse = set(range(half.n)) - set(rows[i].tolist())
        for place, token in zip(at[i].tolist(), x[i], strict=True):
            pixels = token.view(3, p, p)
            row, column = place
            whole = (
                row == int(row) and column == int(column) and int(row) * half.columns + int(column) in coarse
            )
            size = 2 if whole else 1
            top, left = round(2 * row), round(2 * column)
            assert (told[i, top : top + size, left : left + size] == size).all()
            for down, right in product(range(p), repeat=2):
                area = (
                    slice(top * p + down * size, top * p + (down + 1) * size),
                    slice(left * p + right * size, left * p + (right + 1) * size),
                )
                assert (found[i, :, *area] == pixels[:, down, right, None, None]).all()
                covered[i][area] += 1
    assert (covered == 1).all()


def test_a_half_resolution_latent_laid_out_is_itself_enlarged():
    grid, half = Grid(4, 6), Grid(2, 3)
    latent = torch.randn(2, 4, 4, 6)
    x = pack(latent, 2)
    found = unpack(laid_out(x, layout(half.positions().expand(2, -1, -1), grid), grid, 4), grid, 2)
    assert torch.equal(found, latent.repeat_interleave(2, 2).repeat_interleave(2, 3))


# the departure


def test_what_does_as_dense_does_departs_by_nothing(pipe, dense):
    for method in (RAS(ratio=1.0), Steps(STEPS)):
        x, found = traces(pipe, method, dense)
        assert torch.equal(x, dense[0])
        assert all(trace.error.shape == (STEPS, 24) and not trace.error.any() for trace in found)
        assert not any(trace.end.any() for trace in found)


def test_with_fewer_steps_the_first_is_the_dense_one_and_the_last_the_difference_of_the_images(pipe, dense):
    for method in (Steps(3), RAS(ratio=0.25, start=2)):
        x, found = traces(pipe, method, dense)
        for i, trace in enumerate(found):
            assert not trace.error[0].any()
            if len(trace.sigma) == STEPS:
                np.testing.assert_allclose(trace.error[-1], trace.end, rtol=1e-4, atol=1e-6)
            apart = (x[i] - dense[0][i]).square().mean(1).sqrt() / dense[0][i].square().mean().sqrt()
            assert trace.end.any()
            np.testing.assert_allclose(trace.end, apart, rtol=1e-4, atol=1e-6)


def test_the_dense_estimate_stands_still_between_its_steps(lumina):
    """Against x moved along the velocity that the dense run used there."""
    steps = []
    with adapt(lumina) as model:
        flow = model.flow(
            PROMPTS, generators=[generator(p, 0) for p in PROMPTS], height=64, width=96, steps=STEPS
        )
        state = flow.noise()
        flow = model.flow(
            PROMPTS, generators=[generator(p, 0) for p in PROMPTS], height=64, width=96, steps=STEPS
        )
        seen = Observer(flow, state, keep=True)
        Baseline()(flow, on_step=lambda **step: (steps.append(step), seen(**step)))
    trajectory = seen.trajectory()
    before = [state, *(step["x"] for step in steps)]
    ends = [*(float(step["sigma"]) for step in steps), 0.0]
    for i, step in enumerate(steps):
        for part in (0.0, 0.3, 0.99):
            sigma = ends[i] + part * (ends[i + 1] - ends[i])
            x = before[i] + (sigma - ends[i]) * step["v"]
            torch.testing.assert_close(trajectory.at(sigma), x - sigma * step["v"], rtol=0, atol=1e-5)
    torch.testing.assert_close(trajectory.images[-1], steps[-1]["x"], rtol=0, atol=1e-5)


def test_of_mixed_resolutions(pipe, dense):
    """Levels by stage, the regions' scores, and x0 laid out: at the end the difference of the images."""
    x, found = traces(pipe, MIXED, dense)
    for i, trace in enumerate(found):
        assert trace.level is not None
        assert trace.regions is not None
        assert trace.regions.shape == (2, 3)
        shares = [(level == 2).mean() for level in trace.level]
        assert shares == pytest.approx([1, 1, 4 / 6, 4 / 6, 0, 0])
        highest = np.argsort(trace.regions.ravel())[-2:]
        refined = (trace.level[2] == 1).reshape(2, 2, 3, 2).all((1, 3)).ravel()
        assert set(np.flatnonzero(refined)) == set(highest)
        np.testing.assert_allclose(trace.had, np.where(trace.level == 2, 0.25, 1.0))
        apart = (x[i] - dense[0][i]).square().mean(1).sqrt() / dense[0][i].square().mean().sqrt()
        np.testing.assert_allclose(trace.end, apart, rtol=1e-4, atol=1e-5)


def test_each_stage_points_where_its_own_last_state_went(lumina):
    """x0 of the coarse steps starts from the stage's own state, not from that of the stage before."""
    _, seen = observed(lumina, MIXED, keep=True)
    steps = []
    with adapt(lumina) as model:
        flow = model.flow(
            PROMPTS, generators=[generator(p, 0) for p in PROMPTS], height=64, width=96, steps=STEPS
        )
        MIXED(flow, on_step=lambda **step: steps.append(step))
    for step, kept in zip(steps, seen.steps, strict=True):
        image = step["before"] - step["sigma"] * step["v"]
        if step["positions"] is not None:
            image = laid_out(image, layout(step["positions"], Grid(4, 6)), Grid(4, 6), flow.pixels)
        assert kept.image is not None
        torch.testing.assert_close(kept.image, image)


def test_four_images_at_once_as_one_by_one(pipe, dense):
    for method in (RAS(ratio=0.5, start=2), MIXED):
        _, batch = traces(pipe, method, dense)
        for i, prompt in enumerate(PROMPTS):
            _, seen = observed(pipe, Baseline(), [prompt], keep=True)
            _, (alone,) = traces(pipe, method, (None, seen.trajectory()), [prompt])
            np.testing.assert_array_equal(alone.had, batch[i].had)
            np.testing.assert_allclose(alone.score, batch[i].score, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(alone.error, batch[i].error, rtol=1e-3, atol=1e-4)


def test_watching_changes_no_bit(pipe):
    for method in (RAS(ratio=0.5, start=2), MIXED, Steps(4, "unipc")):
        watched, _ = observed(pipe, method)
        with adapt(pipe) as model:
            size = {"height": 64, "width": 96, "steps": STEPS}
            flow = model.flow(
                PROMPTS, generators=[generator(p, 0) for p in PROMPTS], **size, **text_limit(pipe)
            )
            assert torch.equal(method(flow), watched)


# the scores


def test_the_score_is_that_of_ras(lumina):
    steps, method = [], RAS(ratio=0.5, start=2)
    _, seen = observed(lumina, method)
    with adapt(lumina) as model:
        flow = model.flow(
            PROMPTS, generators=[generator(p, 0) for p in PROMPTS], height=64, width=96, steps=STEPS
        )
        method(flow, on_step=lambda **step: steps.append(step))
        for i, trace in enumerate(seen.traces(PROMPTS).values()):
            by_hand = [s["v"][i].unflatten(1, (4, 4)).std(1).mean(1) for s in steps]
            np.testing.assert_allclose(trace.score, torch.stack(by_hand), rtol=1e-4, atol=1e-6)
            ran = [
                np.isin(np.arange(24), s["rows"][i] if s["rows"] is not None else np.arange(24))
                for s in steps
            ]
            np.testing.assert_array_equal(trace.had, np.array(ran))


def test_continuity_is_spearmans():
    rng = np.random.default_rng(0)
    score = rng.integers(0, 9, (5, 40)).astype(float)  # with ties
    score[3] = 7.0
    found = Trace((5, 8), np.linspace(1, 0.2, 5), np.ones((5, 40)), score).continuity()
    assert np.isnan(found[[0, 3, 4]]).all()
    for i in (1, 2):
        assert found[i] == pytest.approx(spearmanr(score[i - 1], score[i]).statistic)
    steady = np.sort(rng.random((3, 40)), 1)
    assert Trace((5, 8), np.ones(3), np.ones((3, 40)), steady).continuity()[1:] == pytest.approx([1, 1])
    assert (
        Trace((5, 8), np.ones(2), np.ones((2, 40)), np.stack([steady[0], -steady[0]])).continuity()[1] == -1
    )


# what a method does not tell


def test_a_method_that_tells_nothing_has_no_trace_and_one_that_tells_the_least_has_all(lumina, dense):
    class Silent:
        def __call__(self, flow, on_step=None):
            return flow.noise()

    class Lost:
        def __call__(self, flow, on_step=None):
            x = flow.noise()
            on_step(i=0, sigma=torch.tensor(1.0), x=x, v=x[:, ::4], rows=None)
            return x

    assert observed(lumina, Silent())[1].traces(PROMPTS) == {}
    assert observed(lumina, Lost())[1].traces(PROMPTS) == {}


# on disk


@pytest.fixture(scope="module")
def stored(finished, tmp_path_factory):
    """A copy of the finished study that may be changed."""
    return Store(shutil.copytree(finished, tmp_path_factory.mktemp("copy") / "whole"))


def cells(store):
    """Label to id."""
    folders = (store.folder / "cells").iterdir()
    return {json.loads((c / "cell.json").read_text())["label"]: c.name for c in folders}


def test_it_comes_back_as_it_went(tmp_path):
    store, rng = Store(tmp_path), np.random.default_rng(0)
    had = rng.integers(0, 256, (3, 6)) / 255
    score, error = (rng.random((3, 6)).astype(np.float16) for _ in range(2))
    sigma, level = np.array([1, 0.5, 0.25], np.float32), np.full((3, 6), 2, np.uint8)
    whole = Trace((2, 3), sigma, had, score, error, error[0], level, rng.random((1, 3)).astype(np.float32))
    least = Trace((2, 3), sigma, had, score)
    save(store, "c", {"a": whole, "b": least, "c": Trace((2, 3), sigma, had, score, error * np.inf)})
    found = read(store, "c")
    assert list(found) == ["a", "b", "c"]
    for key, trace in (("a", whole), ("b", least)):
        for name, value in vars(trace).items():
            np.testing.assert_array_equal(getattr(found[key], name), value)
    assert np.isfinite(found["c"].error).all()
    assert found["a"].over_image(score).shape == (3, 2, 3)
    assert read(store, "another") == {}
    path(store, "c", "a").write_bytes(path(store, "c", "a").read_bytes()[:90])
    path(store, "c", "b").write_bytes(b"")
    assert list(read(store, "c")) == ["c"]


def test_a_study_traces_its_first_batch_and_counts_its_flops(finished):
    store = Store(finished)
    for label, cell in cells(store).items():
        found, records = read(store, cell), store.samples(cell)
        known = records.flops
        assert len(found) == known.images == 2  # of 3 images, in batches of 2
        assert known.counted == known.closed
        assert {len(t.sigma) for t in found.values()} == {3 if label == "3 steps" else 6}
        assert sum(records[key].flops for key in found) == known.counted
        for trace in found.values():
            assert trace.grid == (4, 6)
            assert trace.error.any() == (label != "dense")
            assert (trace.had.min() < 1) == ("ras" in label)


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_study_makes_the_same_traces_where_work_is_left_and_no_others(stored, small, capsys):
    """Of one cell an image and the traces are gone, of dense and another only the traces."""
    before = {name: read(stored, cell) for name, cell in cells(stored).items()}
    named = cells(stored)
    for label in ("dense", "ras ratio=0.5", "3 steps"):
        shutil.rmtree(stored.cell(named[label]) / "traces")
    key = next(iter(stored.samples(named["ras ratio=0.5"])))
    stored.image(named["ras ratio=0.5"], key).unlink()
    assert run.main([*small, f"results={stored.folder.parent}", "name=whole"]) == 0
    assert read(stored, named["3 steps"]) == {}
    for label in ("dense", "ras ratio=0.5", "ras ratio=0.25"):
        found = read(stored, named[label])
        assert list(found) == list(before[label])
        for key, trace in found.items():
            np.testing.assert_array_equal(trace.error, before[label][key].error)
            np.testing.assert_array_equal(trace.score, before[label][key].score)
