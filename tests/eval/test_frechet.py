"""The Fréchet distance against closed forms and scipy's matrix root; its error; its cache."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from scipy.linalg import sqrtm

from fovea.eval import Samples
from fovea.eval.backbone import Backbone
from fovea.eval.features import ROWS
from fovea.eval.features import blocks as plain
from fovea.eval.frechet import FrechetDistance, bias, contributions, fit, told_bias
from fovea.eval.statistics import paired_difference, standard_error
from tests.eval.frechet import frechet_distance


def with_moments(n, mean, covariance, seed=0):
    """n points whose sample mean and unbiased covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def by_sqrtm(a, b):
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)


def features(n, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_gaussians_that_commute_have_a_closed_form():
    a = with_moments(50, [0, 0, 0], np.diag([1.0, 4.0, 9.0]))
    b = with_moments(80, [1, 2, 2], np.diag([4.0, 4.0, 1.0]), seed=1)
    assert frechet_distance(a, b) == pytest.approx(9 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, rel=1e-12)


def test_equals_the_matrix_root_where_that_works():
    a, b = features(60), features(90, seed=1)
    assert frechet_distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("n", [4, 40])
def test_a_set_is_at_no_distance_from_itself_or_its_rotation(n):
    x = features(n, d=10)
    q, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(10, 10)))
    scale = np.trace(np.cov(x, rowvar=False))
    assert abs(frechet_distance(x, x)) < 1e-7 * scale
    assert frechet_distance(x @ q, features(30, 10, 1) @ q) == pytest.approx(
        frechet_distance(x, features(30, 10, 1)), rel=1e-9
    )


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 100), (100, 5)])
def test_few_images_in_many_dimensions_are_exact(n, m):
    """Below d the covariance is singular: a little variance everywhere makes it one that sqrtm solves."""
    a, b = features(n, d=16), features(m, d=16, seed=1)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm((s + 1e-12 * np.eye(16)) @ (t + 1e-12 * np.eye(16)))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t) - 2 * np.trace(root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_large_offsets_do_not_cost_digits():
    a, b = features(40), features(60, seed=1)
    assert frechet_distance(a + 1e4, b + 1e4) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def by_weight(x, w, reference):
    """The distance with image weights w, their sum held at n."""
    n, w = len(x), w * len(w) / w.sum()
    mean = w @ x / n
    s, t = (w * (x - mean).T) @ (x - mean) / (n - 1), np.cov(reference, rowvar=False)
    return ((mean - reference.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)


def test_many_images_are_taken_in_blocks(monkeypatch):
    x, y = features(50), features(90, seed=1)
    expected = fit(y), contributions(x, fit(y)), [bias(fit(y), 50, seed) for seed in range(60)]
    taken = []

    def blocks(features, size=16):
        taken.append(size)
        return plain(features, 16)

    monkeypatch.setattr("fovea.eval.frechet.blocks", blocks)
    assert np.allclose(fit(y).root @ fit(y).root.T, expected[0].root @ expected[0].root.T, rtol=1e-12)
    assert np.allclose(contributions(x, fit(y)), expected[1], rtol=1e-10)
    drawn = [bias(fit(y), 50, seed) for seed in range(60)]  # others, of the same Gaussian
    assert np.mean(drawn) == pytest.approx(np.mean(expected[2]), rel=0.3)
    assert max(taken) <= ROWS


def test_contributions_are_the_distance_and_its_derivatives():
    x, reference = features(20, d=4), features(50, d=4, seed=1)
    each = contributions(x, fit(reference))
    assert each.mean() == pytest.approx(by_sqrtm(x, reference), rel=1e-9)
    for i in range(3):
        step = 1e-5 * np.eye(20)[i]
        slope = (by_weight(x, 1 + step, reference) - by_weight(x, 1 - step, reference)) / 2e-5
        assert each[i] - each.mean() == pytest.approx(20 * slope, rel=1e-5)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (16, 24)])
def test_the_standard_error_is_the_spread_over_repetitions(n, d):
    rng, shift = np.random.default_rng(7), np.eye(d)[0]
    reference = fit(rng.normal(size=(500, d)))
    draws = [contributions(rng.normal(size=(n, d)) + shift, reference) for _ in range(200)]
    spread = np.std([x.mean() for x in draws])
    assert 0.9 < np.mean([standard_error(x) for x in draws]) / spread < 1.4


def test_the_interval_of_a_difference_covers_it():
    """Dense and method share most of their features, as images of the same seeds do."""
    rng, n, d, hits = np.random.default_rng(9), 24, 32, 0
    reference, pairs = fit(rng.normal(size=(500, d))), []
    for _ in range(150):
        dense = rng.normal(size=(n, d))
        method = 0.9 * dense + 0.44 * rng.normal(size=(n, d)) + 0.5 * np.eye(d)[0]
        pairs.append((contributions(method, reference), contributions(dense, reference)))
    expected = np.mean([a.mean() - b.mean() for a, b in pairs])
    for a, b in pairs:
        interval = paired_difference(a, b, worse=None)
        hits += interval.low <= expected <= interval.high
    assert 0.9 <= hits / 150 <= 1


def test_the_bias_falls_as_one_over_n():
    """Both sets from one distribution, so that the true distance is 0, which no estimate is."""
    rng = np.random.default_rng(7)
    reference = fit(rng.normal(size=(20_000, 8)))
    few, many = (
        np.mean([contributions(rng.normal(size=(n, 8)), reference).mean() for _ in range(50)])
        for n in (50, 200)
    )
    assert few == pytest.approx(4 * many, rel=0.15)


@pytest.fixture
def metric(backbone, reference, tmp_path):
    return FrechetDistance(backbone=backbone, reference=reference, cache=tmp_path / "cache")


def test_is_the_distance_of_the_models_features(metric, samples, backbone, reference):
    encoder = backbone.load()
    expected = frechet_distance(
        encoder.images(samples.images)["features"].double(),
        encoder.pictures([Image.open(p).convert("RGB") for p in sorted(reference.glob("*.png"))])[
            "features"
        ].double(),
    )
    score = metric(samples)[0]
    assert score.name == "fd[tiny]"
    assert score.value == pytest.approx(expected, rel=1e-6)
    assert score.se > 0
    assert score.facts.biased
    assert score.n == 10


def test_difference_to_the_dense_images_is_paired(metric, samples):
    ours, theirs = metric(samples)[0], metric(replace(samples, images=samples.dense))[0]
    assert ours.difference.value == pytest.approx(ours.value - theirs.value, rel=1e-9)
    assert ours.difference.low < ours.difference.value < ours.difference.high
    assert ours.difference.high - ours.difference.low < 3 * ours.se  # the difference is surer than either
    assert (theirs.difference.value, theirs.difference.low, theirs.difference.high) == (0, 0, 0)
    assert metric(replace(samples, dense=None))[0].difference is None


def test_reference_features_are_kept_by_content(metric, samples, reference, tmp_path):
    first = metric(samples)
    (kept,) = (tmp_path / "cache").glob("*.safetensors")
    before = kept.stat().st_mtime_ns
    assert metric(samples) == first
    assert kept.stat().st_mtime_ns == before
    with safe_open(kept, "pt") as file:
        assert "weights" in file.metadata()["made_from"]
        assert file.get_tensor("features").shape == (12, 16)

    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for path in sorted(reference.glob("*.png"))[:6]:
        (fewer / path.name).write_bytes(path.read_bytes())
    assert replace(metric, reference=fewer)(samples)[0].value != first[0].value
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2
    assert replace(metric, cache=None)(samples) == first
    assert replace(metric, cache=kept / "not a folder")(samples) == first


def test_one_image_no_reference_or_no_weights_is_unavailable(metric, samples, tmp_path):
    one = Samples(samples.images[:1], samples.prompts[:1], samples.keys[:1])
    assert "two images" in metric(one)[0].remedy
    for broken, says in (
        (replace(metric, reference=tmp_path / "none"), "give a folder of images"),
        (replace(metric, backbone=Backbone(model=f"local-dir:{tmp_path}", name="tiny")), "backbone.model"),
    ):
        score = broken(samples)[0]
        assert (score.name, score.value, score.n) == ("fd[tiny]", None, 10)
        assert says in score.remedy
        with pytest.raises(Exception, match=says):
            broken.check()


def test_the_bias_of_few_images_is_told_beside_the_dense_ones():
    """Of a set and a reference that are alike all of the distance is bias."""
    rng = np.random.default_rng(0)
    reference = fit(rng.normal(size=(4000, 16)))
    found = [contributions(rng.normal(size=(24, 16)), reference).mean() for _ in range(40)]
    assert np.mean([bias(reference, 24, seed) for seed in range(40)]) == pytest.approx(
        np.mean(found), rel=0.1
    )
    told = told_bias(bias(reference, 24), reference, 24)
    assert told.startswith(f"some 100% of {bias(reference, 24):.4g} with 24 images is the bias of so few")
    assert "24 draws" in told_bias(2 * bias(reference, 24), reference, 24)
    assert told_bias(20 * bias(reference, 24), reference, 24) == ""
