import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from lit_vae.metrics.image_quality import (
    ImageQualityMetric,
    ms_ssim_per_image,
    mse_per_image,
    psnr_per_image,
    ssim_per_image,
    ssim_window,
)


def pair(n, channels, height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, height, width, generator=generator) * 2 - 1
    noise = torch.rand(x.shape, generator=generator) * torch.linspace(0.1, 1.0, n).reshape(-1, 1, 1, 1)
    return (x + noise).clamp(-1, 1), x


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 11, 11)])
def test_ssim_is_that_of_scikit_image_on_zero_to_one(shape):
    x_hat, x = pair(5, *shape)
    got = ssim_per_image(x_hat, x, ssim_window(*shape[1:]))
    for i in range(5):
        expected = structural_similarity(
            (x_hat[i].double().numpy() + 1) / 2,
            (x[i].double().numpy() + 1) / 2,
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert got[i].item() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 28)])
def test_small_images_have_the_uniform_window_of_scikit_image(shape):
    x_hat, x = pair(4, *shape)
    window = ssim_window(*shape[1:])
    assert window.name == "ssim_uniform7"
    got = ssim_per_image(x_hat, x, window)
    for i in range(4):
        a, b = (x_hat[i].double().numpy() + 1) / 2, (x[i].double().numpy() + 1) / 2
        given = {"win_size": 7, "channel_axis": 0, "data_range": 1.0, "use_sample_covariance": False}
        assert got[i].item() == pytest.approx(structural_similarity(a, b, **given), abs=2e-5)


def ms_ssim(a, b):
    """Wang et al. 2003, eq. 7, of arrays ``(C, H, W)`` in [0, 1], plainly."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x):
        return correlate1d(correlate1d(x, window, axis=1), window, axis=2)[:, 5:-5, 5:-5]

    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        value = (2 * cov + 0.03**2) / (var_a + var_b + 0.03**2)
        if scale == 4:
            value *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        product *= value.mean() ** weight
        height, width = a.shape[1] // 2, a.shape[2] // 2
        a, b = (x[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2).mean((2, 4)) for x in (a, b))
    return product


@pytest.mark.parametrize("shape", [(3, 176, 200), (1, 201, 187)])
def test_ms_ssim_is_eq_7_of_wang(shape):
    x_hat, x = pair(3, *shape)
    got = ms_ssim_per_image(x_hat, x)
    for i in range(3):
        a, b = ((image[i].double().numpy() + 1) / 2 for image in (x_hat, x))
        assert got[i].item() == pytest.approx(ms_ssim(a, b), abs=2e-5)
    metric = ImageQualityMetric(*shape[1:])
    metric.update(x_hat[:2], x[:2])
    metric.update(x_hat[2:], x[2:])
    assert metric.compute()["ms_ssim"].item() == pytest.approx(got.mean().item(), rel=1e-6)


def test_the_negative_of_an_image_is_not_like_it_and_no_nan():
    x = pair(2, 1, 176, 176)[1]
    assert torch.equal(ms_ssim_per_image(-x, x), torch.zeros(2))


def test_small_images_have_no_scales():
    assert "ms_ssim" not in ImageQualityMetric(175, 300).names
    assert "ms_ssim" in ImageQualityMetric(176, 300).names


def test_an_image_is_like_itself():
    x = pair(2, 1, 176, 176)[1]
    torch.testing.assert_close(ssim_per_image(x, x, ssim_window(16, 16)), torch.ones(2))
    torch.testing.assert_close(ms_ssim_per_image(x, x), torch.ones(2))


@pytest.mark.parametrize(("size", "name"), [((11, 40), "ssim"), ((40, 10), "ssim_uniform7"), ((6, 40), None)])
def test_which_window_fits(size, name):
    window = ssim_window(*size)
    assert (window.name if window else None) == name


def test_psnr_by_hand_and_by_scikit_image():
    x_hat, x = pair(6, 3, 9, 10)
    mse = mse_per_image(x_hat, x)
    got = psnr_per_image(mse)
    for i in range(6):
        a, b = x_hat[i].double().numpy(), x[i].double().numpy()
        assert mse[i].item() == pytest.approx(mean_squared_error(a, b), rel=1e-12)
        assert got[i].item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2.0), rel=1e-12)
    assert psnr_per_image(torch.tensor([0.04]))[0].item() == pytest.approx(20.0)  # an error of 0.2 of 2
    assert psnr_per_image(torch.tensor([0.0]))[0].item() == pytest.approx(100.0)


def test_means_are_over_images_and_not_over_batches():
    x_hat, x = pair(11, 1, 12, 12)
    metric = ImageQualityMetric(12, 12)
    for start, stop in ((0, 2), (2, 10), (10, 11)):
        metric.update(x_hat[start:stop], x[start:stop])
    got = metric.compute()
    psnr = [10 * math.log10(4 / (x_hat[i].double() - x[i].double()).square().mean().item()) for i in range(11)]
    assert got["psnr"].item() == pytest.approx(sum(psnr) / 11, rel=1e-12)
    assert got["mse"].item() == pytest.approx((x_hat.double() - x.double()).square().mean().item(), rel=1e-12)
    assert got["ssim"].item() == pytest.approx(ssim_per_image(x_hat, x, ssim_window(12, 12)).mean().item(), rel=1e-6)
    of_mean_error = 10 * math.log10(4 / got["mse"].item())
    assert abs(got["psnr"].item() - of_mean_error) > 0.1  # another number, and not this one


def test_tiny_images_have_no_ssim():
    metric = ImageQualityMetric(4, 4)
    metric.update(*pair(3, 1, 4, 4))
    assert set(metric.compute()) == {"mse", "psnr"}
