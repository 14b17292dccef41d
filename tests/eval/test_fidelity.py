"""PSNR and SSIM against torchmetrics, against the formulas written out, and at the ends of uint8."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv2d, pad
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from fovea.eval import Samples
from fovea.eval.fidelity import PSNR, SSIM, similarity


def pair(images, dense):
    n = len(images)
    return Samples(images, [f"prompt {i}" for i in range(n)], [str(i) for i in range(n)], dense)


def flat(level, n=2):
    return torch.full((n, 3, 16, 16), level, dtype=torch.uint8)


def psnr(samples):
    return {s.name: s for s in PSNR()(samples)}


def test_psnr_is_torchmetrics_over_the_whole_set(samples):
    expected = peak_signal_noise_ratio(samples.images.double(), samples.dense.double(), data_range=255.0)
    assert psnr(samples)["psnr"].value == pytest.approx(float(expected), rel=1e-6)
    for i in range(samples.n):
        one = peak_signal_noise_ratio(samples.images[i].double(), samples.dense[i].double(), data_range=255.0)
        assert psnr(samples)["psnr"].per_image[i] == pytest.approx(float(one), rel=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0, 255), (255, 0), (250, 5), (7, 8)])
def test_uint8_does_not_wrap(a, b):
    scores = psnr(pair(flat(a), flat(b)))
    assert scores["psnr"].value == pytest.approx(20 * math.log10(255 / abs(a - b)), abs=1e-9)
    assert scores["psnr"].se == 0
    assert scores["identical"].value == 0


def test_identical_images_count_as_no_error_and_are_counted():
    images = flat(100, n=4)
    dense = images.clone()
    dense[0] += 10
    scores = psnr(pair(images, dense))
    assert scores["psnr"].value == pytest.approx(10 * math.log10(255**2 / (100 / 4)))
    assert scores["psnr"].per_image[1:] == (math.inf,) * 3
    assert scores["psnr"].se == pytest.approx(10 / math.log(10) * 50 / 2 / 25)  # s of (100, 0, 0, 0) is 50
    assert scores["identical"].value == 0.75
    assert scores["identical"].per_image == (0, 1, 1, 1)


def test_only_all_identical_is_infinite():
    scores = psnr(pair(flat(3), flat(3)))
    assert scores["psnr"].value == math.inf
    assert scores["psnr"].se == 0
    assert scores["identical"].value == 1
    assert SSIM()(pair(flat(3), flat(3)))[0].value == 1


def ssim_by_hand(a, b):
    """Wang et al. 2004, equation 13, an 11 x 11 Gaussian window, per channel, mirrored at the borders."""
    g = torch.exp(-((torch.arange(11) - 5.0).double() ** 2) / (2 * 1.5**2))
    window = (g[:, None] * g / g.sum() ** 2)[None, None]

    def mean(x):
        return conv2d(pad(x[:, None], (5, 5, 5, 5), mode="reflect"), window)  # channels as a batch

    a, b = a.double(), b.double()
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def test_ssim_is_the_formula(samples):
    score = SSIM()(samples)[0]
    for i in range(3):
        assert score.per_image[i] == pytest.approx(
            ssim_by_hand(samples.images[i], samples.dense[i]), abs=1e-9
        )
    assert score.value == pytest.approx(sum(score.per_image) / 10)


def test_ssim_where_images_are_bright_and_flat(samples):
    images = samples.images.clone()
    images[..., :24, :] = 255
    for score in SSIM()(pair(images, images.clone()))[0].per_image:
        assert score == 1
    dense = (images.int() - (torch.rand(images.shape) < 0.1).int()).clamp(0).to(torch.uint8)
    score = SSIM()(pair(images, dense))[0]
    for i in range(3):
        assert score.per_image[i] == pytest.approx(ssim_by_hand(images[i], dense[i]), abs=1e-9)


def test_ssim_at_the_ends_of_uint8():
    score = SSIM()(pair(flat(0), flat(255)))[0]
    c1 = (0.01 * 255) ** 2
    assert score.value == pytest.approx(c1 / (255**2 + c1), rel=1e-5)


def test_ssim_says_when_its_window_does_not_fit(samples):
    small = Samples(samples.images[..., :10], samples.prompts, samples.keys, samples.dense[..., :10])
    assert "11 x 11" in SSIM()(small)[0].unavailable
    fits = Samples(samples.images[..., :11, :11], samples.prompts, samples.keys, samples.dense[..., :11, :11])
    assert SSIM()(fits)[0].value is not None


@pytest.mark.parametrize("metric", [PSNR(), SSIM()])
def test_without_dense_images_there_is_no_fidelity(samples, metric):
    for score in metric(replace(samples, dense=None)):
        assert score.value is None
        assert "baseline" in score.remedy


def test_ssim_is_torchmetrics_in_double_precision():
    draw = torch.Generator().manual_seed(0)
    a = torch.randint(0, 256, (3, 40, 57), generator=draw, dtype=torch.uint8)
    b = (a.int() + torch.randint(-30, 30, a.shape, generator=draw)).clamp(0, 255).byte()
    theirs = structural_similarity_index_measure(
        a[None].double(), b[None].double(), sigma=1.5, kernel_size=11, data_range=255.0, k1=0.01, k2=0.03
    )
    assert similarity(a, b) == pytest.approx(float(theirs), abs=1e-12)
