"""NIQE: its features against direct ones, its scores against BasicSR's own function, its parameters."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import convolve, uniform_filter
from scipy.special import gamma

from fovea.eval import Samples
from fovea.eval.naturalness import block_features, fitted, halved, local, luminance
from fovea.eval.niqe import NIQE, distance
from fovea.eval.weights import located
from scripts import niqe_parameters

# what basicsr 1.4.2's own function gives for scene(0) and scene(1), with convert_to="gray" and "y"
GRAY, YCBCR = (8.805392796968633, 9.781438158948854), (8.681235126931467, 9.452583598786493)
IN_GRAY = (  # and for their green channel alone
    11.249679070694013,
    11.209331744709157,
)


def scene(seed=0, height=200, width=300):
    """Something like a photograph: smoothed noise at several scales, uint8 (3, H, W)."""
    rng, out = np.random.default_rng(seed), np.zeros((3, height, width))
    for size in (1, 3, 9, 27, 81):
        for c, noise in enumerate(rng.integers(0, 2**20, (3, height, width)) / 2**20):
            out[c] += uniform_filter(noise, size, mode="wrap") * size
    out = (out - out.min()) / (out.max() - out.min())
    return torch.from_numpy((out * 235 + 10).round().astype(np.uint8))


def gray(image):
    return image[1:2].expand(3, -1, -1).contiguous()


def images(*made):
    return Samples(torch.stack(made), [""] * len(made), [str(i) for i in range(len(made))])


def test_scores_are_those_of_basicsr():
    """Which has luminance in single precision, where colours half-way between two levels go either way."""
    made = images(scene(0), scene(1))
    assert NIQE()(images(*map(gray, made.images)))[0].per_image == pytest.approx(IN_GRAY, rel=1e-5)
    assert NIQE()(made)[0].per_image == pytest.approx(GRAY, rel=1e-3)
    assert NIQE(luma="ycbcr")(made)[0].per_image == pytest.approx(YCBCR, rel=1e-4)


def test_a_block_is_fitted_as_the_paper_writes_it():
    """Equations 7 to 9 by a search over the shape, one block at a time."""
    x = np.random.default_rng(0).standard_normal((2, 400)) ** 3 + 0.1
    shapes, lefts, rights = fitted(torch.from_numpy(x))
    for row, a, left, right in zip(x, shapes, lefts, rights, strict=True):
        down, up = (np.sqrt((row[side] ** 2).mean()) for side in (row < 0, row > 0))
        g = down / up
        ratio = np.abs(row).mean() ** 2 / (row**2).mean() * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        grid = np.arange(0.2, 10.001, 0.001)
        best = grid[np.abs(gamma(2 / grid) ** 2 / gamma(1 / grid) / gamma(3 / grid) - ratio).argmin()]
        assert float(a) == pytest.approx(best, abs=1e-9)
        assert float(left) == pytest.approx(down * np.sqrt(gamma(1 / best) / gamma(3 / best)))
        assert float(right) == pytest.approx(up * np.sqrt(gamma(1 / best) / gamma(3 / best)))


def test_the_shape_of_known_distributions():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 400_000)))
    laplace = torch.from_numpy(np.random.default_rng(0).laplace(size=(1, 400_000)))
    assert float(fitted(x)[0]) == pytest.approx(2, abs=0.02)
    assert float(fitted(laplace)[0]) == pytest.approx(1, abs=0.02)


def test_local_moments_are_those_of_a_gaussian_window():
    y = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 1, 20, 30)))
    g = np.exp(-(np.arange(-3, 4) ** 2) / 2 / (7 / 6) ** 2)
    window = np.outer(g, g) / g.sum() ** 2
    mean, deviation = local(y)
    expected = convolve(y[0, 0].numpy(), window, mode="nearest")
    square = convolve(y[0, 0].numpy() ** 2, window, mode="nearest")
    assert np.allclose(mean[0, 0], expected)
    assert np.allclose(deviation[0, 0], np.sqrt(np.abs(square - expected**2)))


def test_half_size_is_pillows_but_for_the_borders():
    """Pillow's bicubic has the same kernel, and renormalises at the borders instead of mirroring."""
    y = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (40, 60)).astype(np.float32))
    theirs = np.asarray(Image.fromarray(y.numpy()).resize((30, 20), Image.Resampling.BICUBIC))
    ours = halved(y[None, None].double())[0, 0].numpy()
    assert ours.shape == (20, 30)
    assert np.allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-3)
    assert np.allclose(halved(torch.ones(1, 1, 8, 8).double()), 1)


def test_luminance_is_whole_and_cut_to_whole_blocks():
    image = scene()
    gray, ycbcr = luminance(image, "gray"), luminance(image, "ycbcr")
    assert gray.shape == (1, 1, 192, 288)
    assert torch.equal(gray, gray.round())
    white = torch.full((3, 96, 96), 255, dtype=torch.uint8)
    assert luminance(white, "gray").unique().tolist() == [255]
    assert luminance(white, "ycbcr").unique().tolist() == [235]
    assert ycbcr.max() <= 235


def test_flat_areas_do_not_depend_on_rounding():
    """The same picture 3 levels brighter has the same statistics to the last digits, flat areas and all."""
    image = gray(scene() // 2)
    image[:, :100, :150] = 40
    a, b = (block_features(x, "gray") for x in (image, image + 3))
    assert torch.allclose(a, b, equal_nan=True, atol=1e-9)


def test_an_image_of_the_parameters_own_distribution_is_near():
    found = block_features(scene(), "gray")
    own = distance(found, found.mean(0), found.T.cov())
    assert own == pytest.approx(0, abs=1e-6)


def test_more_noise_and_blur_score_worse_and_batches_do_not_matter():
    clean = scene(2)
    noise = torch.randint(-40, 41, clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = (clean.int() + noise).clamp(0, 255).to(torch.uint8)
    both = NIQE()(images(clean, noisy))[0]
    assert both.name == "niqe[gray]"
    assert both.better == "lower"
    alone = NIQE()(images(noisy))[0]
    assert alone.value == both.per_image[1]
    assert alone.se is None


def test_the_same_images_as_the_dense_ones_differ_by_nothing():
    made = images(scene(0), scene(1))
    difference = NIQE()(replace(made, dense=made.images))[0].difference
    assert difference.value == difference.low == difference.high == 0


def test_what_is_too_small_or_flat_has_no_score():
    small = NIQE()(images(scene(height=96, width=180)))[0]
    assert "two blocks" in small.unavailable
    assert NIQE()(images(scene(height=96, width=192)))[0].value > 0
    flat = torch.full((3, 192, 192), 9, dtype=torch.uint8)
    assert "1 of 2 images are flat" in NIQE()(images(flat, scene()[:, :192, :192]))[0].unavailable


def test_missing_parameters_say_what_writes_them(tmp_path, samples):
    score = NIQE(parameters=tmp_path / "none.safetensors")(samples)[0]
    assert "scripts.niqe_parameters" in score.remedy


def test_the_parameters_are_the_published_ones():
    kept = load_file(located(NIQE().parameters))
    assert kept["mean"].shape == (36,)
    assert torch.allclose(kept["covariance"], kept["covariance"].T)
    assert torch.linalg.eigvalsh(kept["covariance"]).min() > 0
    # the first of the release's mu_prisparam
    assert kept["mean"][:3].tolist() == pytest.approx([2.60131368, 0.90570272, 0.81204778], abs=1e-8)


def test_another_archive_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(niqe_parameters.MEMBER)
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(ValueError, match="does not hold"):
        niqe_parameters.published(tmp_path / "a.tar.gz")


def test_parameters_can_be_fitted_to_ones_own_photographs(tmp_path):
    for i in range(8):
        array = scene(i, 288, 288).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / f"{i}.png")
    mean, covariance = niqe_parameters.fitted(sorted(tmp_path.glob("*.png")), "gray")
    one = block_features(scene(20, 288, 288), "gray")
    assert distance(one, mean, covariance) < NIQE()(images(scene(20, 288, 288)))[0].value
    with pytest.raises(ValueError, match="more photographs"):
        niqe_parameters.fitted([tmp_path / "0.png"], "gray")
