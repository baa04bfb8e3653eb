"""What an image costs in a progressive code, against Shannon's bound for a Gaussian source."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from best_denoiser import STD, prior
from scipy.special import digamma
from torch import Tensor

from callbacks.rate_distortion import RateDistortion, Source, _rate_at, progressive
from lit_vae.images import Batch
from lit_vae.noise import FIXED, Draws

DIMS = 18


def sent(n: int, decode: Any = lambda z, y: z) -> Tensor:
    z = STD * torch.randn(n, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.full((n,), -1)
    lams = torch.linspace(-8.0, 8.0, 65, dtype=torch.float64)
    with torch.no_grad():
        return progressive(
            prior(), Source(lambda x, y, draws: x, decode), Batch(z, y), lams, Draws(0, FIXED, torch.arange(n))
        )


def test_the_best_denoiser_of_a_gaussian_source_reaches_shannons_bound() -> None:
    """Oracle: D(R) = s^2 exp(-2 R / d). The mean of 10 log10 of a chi-square has a digamma in it."""
    curves = sent(20_000)
    rates, psnrs = curves.mean(0)
    errors = curves.std(0) / math.sqrt(len(curves))
    levels = torch.linspace(-8.0, 8.0, 65, dtype=torch.float64)
    information = 0.5 * DIMS * torch.log1p(STD**2 * levels.exp())  # R = I(z; x)
    step = 0.25**2 / 12 * 0.5 * DIMS * 16 * 0.1  # the trapezoids: h^2 / 12 times the range times |f''| < 0.1 d / 2
    assert ((rates - information).abs() < 4 * errors[0] + step).all()
    distortion = STD**2 * torch.exp(-2.0 * information / DIMS)  # of a value
    chi_square = digamma(DIMS / 2) + math.log(2.0 / DIMS)  # E ln(chi^2_d / d)
    expected = 10.0 * torch.log10(4.0 / distortion) - 10.0 / math.log(10.0) * chi_square
    assert ((psnrs - expected).abs() < 4 * errors[1] + 1e-3).all()


def test_an_image_costs_the_same_whatever_its_batch() -> None:
    whole = sent(6)
    part = Batch(STD * torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))[2:5], torch.full((3,), -1))
    lams = torch.linspace(-8.0, 8.0, 65, dtype=torch.float64)
    source = Source(lambda x, y, draws: x, lambda z, y: z)
    with torch.no_grad():
        alone = progressive(prior(), source, part, lams, Draws(0, FIXED, torch.arange(2, 5)))
    torch.testing.assert_close(alone, whole[2:5], rtol=1e-5, atol=1e-5)


def test_a_rate_is_read_between_levels_where_the_psnr_first_is_that_high() -> None:
    rates, psnrs = torch.tensor([0.0, 2.0, 4.0, 8.0]), torch.tensor([10.0, 14.0, 13.0, 20.0])
    curves = torch.stack([rates, psnrs])[None].double()
    for decibels, expected in ((9, 0.0), (10, 0.0), (12, 1.0), (14, 2.0), (17, 4.0 + 4.0 * 4 / 7)):
        assert float(_rate_at(curves, decibels)) == pytest.approx(expected, abs=1e-12)
    assert _rate_at(curves, 21).isnan()


def test_numbers_are_named_after_their_psnr() -> None:
    callback = RateDistortion([30, 20, 20])
    assert callback.numbers(prior(), None) == ["rate_at_20db", "rate_at_30db"]
    assert set(callback.protocols) == {"rate_at_20db", "rate_at_30db"}
    with pytest.raises(ValueError, match=r"decibels"):
        RateDistortion([0])


def test_without_a_data_module_of_ours_it_is_refused() -> None:
    trainer: Any = SimpleNamespace(datamodule=None)
    with pytest.raises(ValueError, match=r"RateDistortion: it needs images of a lit_vae.data .* is NoneType\. Train"):
        RateDistortion().setup(trainer, prior(), "fit")
