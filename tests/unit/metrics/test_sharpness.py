"""Sharpness against closed forms: what a blur leaves of a wave, and of noise."""

import math

import pytest
import torch
from torch import Tensor

from lit_vae.metrics import SharpnessMetric, high_frequency_energy, laplacian_variance

pytestmark = pytest.mark.usefixtures("float64")


def blurred(x: Tensor) -> Tensor:
    """[1, 2, 1] / 4 along both axes, around the border: gain ``cos^2(pi f)`` along each."""
    for axis in (-1, -2):
        x = 0.25 * (x.roll(1, axis) + 2.0 * x + x.roll(-1, axis))
    return x


def wave(rows: int, columns: int, height: int = 12, width: int = 16, amplitude: float = 0.5) -> Tensor:
    """So many periods over the image each way."""
    phase = rows / height * torch.arange(height)[:, None] + columns / width * torch.arange(width)
    return amplitude * torch.cos(2.0 * math.pi * phase)[None, None]


def ratios(x_hat: Tensor, x: Tensor) -> dict[str, float]:
    metric = SharpnessMetric()
    metric.update(x_hat, x)
    return {name: value.item() for name, value in metric.compute().items()}


@pytest.mark.parametrize(("rows", "columns", "high"), [(0, 3, False), (0, 4, False), (0, 5, True), (3, 0, False),
                                                       (4, 0, True), (2, 2, False), (2, 3, True)])  # fmt: skip
def test_a_wave_counts_if_it_is_beyond_half_the_nyquist_frequency(rows: int, columns: int, high: bool) -> None:
    assert high == (math.hypot(rows / 12, columns / 16) > 0.25)
    energy = high_frequency_energy(wave(rows, columns).repeat(1, 2, 1, 1))
    expected = 2 * 12 * 16 * 0.5 * 0.5**2 if high else 0.0  # channels x places x the mean of a squared cosine
    torch.testing.assert_close(energy, torch.tensor([expected]), rtol=1e-12, atol=1e-12)


def test_all_energy_is_counted_where_all_of_it_is_high() -> None:
    x = torch.randn(3, 2, 8, 8)
    low = torch.fft.fftfreq(8)[:, None].square() + torch.fft.fftfreq(8).square() <= 0.0625
    spectrum = torch.fft.fft2(x)
    spectrum[..., low] = 0.0
    high = torch.fft.ifft2(spectrum).real
    torch.testing.assert_close(high_frequency_energy(high), high.square().sum((1, 2, 3)))
    torch.testing.assert_close(high_frequency_energy(x), high.square().sum((1, 2, 3)))


def test_the_laplacian_of_a_wave() -> None:
    """It is the wave times ``2 cos(2 pi f) - 2``; over all places but a border of whole periods its mean is zero."""
    x = wave(0, 4)[..., :12, :10]  # 8 inner columns: two periods of 4
    expected = (2.0 * math.cos(2.0 * math.pi / 4) - 2.0) ** 2 * 0.5 * 0.5**2
    torch.testing.assert_close(laplacian_variance(x), torch.tensor([expected]))
    torch.testing.assert_close(laplacian_variance(x.repeat(1, 3, 1, 1)), torch.tensor([3 * expected]))


def test_a_plane_has_no_laplacian() -> None:
    x = torch.arange(9.0)[:, None] + 2.0 * torch.arange(7.0)
    assert laplacian_variance(x[None, None]).abs() < 1e-20


def test_identical_images_are_as_sharp() -> None:
    x = torch.randn(4, 3, 8, 9)
    assert ratios(x, x) == {"sharpness": 1.0, "laplacian_ratio": 1.0}


def test_a_blur_leaves_the_closed_form() -> None:
    x, gain = wave(0, 5), math.cos(math.pi * 5 / 16) ** 2
    assert ratios(blurred(x), x) == pytest.approx({"sharpness": gain**2, "laplacian_ratio": gain**2}, rel=1e-10)


def test_a_blur_of_noise_leaves_the_mean_gain() -> None:
    x = torch.randn(2000, 1, 16, 16)
    f = torch.fft.fftfreq(16)
    gain = torch.cos(math.pi * f)[:, None] ** 2 * torch.cos(math.pi * f) ** 2
    high = f[:, None] ** 2 + f**2 > 0.0625
    assert ratios(blurred(x), x)["sharpness"] == pytest.approx(gain[high].square().mean().item(), rel=0.02)


def test_the_ratio_is_of_sums_over_all_images() -> None:
    x = torch.stack([torch.randn(1, 8, 8), torch.zeros(1, 8, 8), torch.randn(1, 8, 8)])
    x_hat = torch.stack([0.5 * x[0], 1e-3 * torch.randn(1, 8, 8), 0.9 * x[2]])  # the second would divide by zero
    metric = SharpnessMetric()
    for part in ([0], [1, 2]):
        metric.update(x_hat[part], x[part])
    expected = high_frequency_energy(x_hat).sum() / high_frequency_energy(x).sum()
    torch.testing.assert_close(metric.compute()["sharpness"], expected)
    expected = laplacian_variance(x_hat).sum() / laplacian_variance(x).sum()
    torch.testing.assert_close(metric.compute()["laplacian_ratio"], expected)


def test_float32_images_are_measured_in_float64() -> None:
    x = torch.randn(2, 1, 8, 8).float()
    torch.testing.assert_close(high_frequency_energy(x), high_frequency_energy(x.double()), rtol=0.0, atol=0.0)
    assert laplacian_variance(x).dtype == torch.float64
