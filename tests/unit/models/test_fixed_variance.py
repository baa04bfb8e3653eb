"""Noise of a fixed variance in the latent."""

import math
from functools import partial

import pytest
import torch
from torch import distributions as td

from lit_vae.images import Batch
from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import VAE
from lit_vae.networks import MLP
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO
from lit_vae.posteriors import FixedVariance
from lit_vae.priors import StandardNormal

STD = 0.3


def test_noise_is_a_ridge_penalty_of_a_linear_decoder() -> None:
    """Oracle: E|x - W(m + s e) - b|^2 = |x - W m - b|^2 + s^2 |W|_F^2 (Bishop 1995), and the KL in closed form."""
    network, variance = partial(MLP, hidden=[]), 0.5
    model = VAE(
        [1, 2, 3], StandardNormal([2]), network, network, FixedGaussian(variance=variance), ELBO(),
        partial(torch.optim.Adam, lr=1e-3), posterior=partial(FixedVariance, std=STD),
    )  # fmt: skip
    n = 40_000
    x = torch.rand(1, 1, 2, 3).expand(n, 1, 2, 3)
    y = torch.zeros(n, dtype=torch.long)
    with torch.no_grad():
        terms = model.step(Batch(x, y), None, Draws(0, 0, torch.arange(n))).terms
    mean = model.encode(x[:1], y[:1]).mean
    (weight,) = (p for p in model.decoder.parameters() if p.ndim == 2)
    error = (x[:1] - model.decode(mean, y[:1]).mean).square().sum() + STD**2 * weight.square().sum()
    expected = error / (2 * variance) + 3 * math.log(2 * math.pi * variance)
    standard_error = float(terms["distortion"].std()) / math.sqrt(n)
    assert float(terms["distortion"].mean()) == pytest.approx(float(expected.detach()), abs=4 * standard_error)
    prior = td.Normal(torch.zeros(()), torch.ones(()))
    kl = td.kl_divergence(td.Normal(mean.detach(), torch.tensor(STD)), prior).sum()
    torch.testing.assert_close(terms["rate"].mean(), kl, rtol=1e-12, atol=0.0)


def test_the_encoder_gives_the_mean_alone() -> None:
    posterior = FixedVariance((4, 8, 8), STD)
    assert posterior.in_shape == (4, 8, 8)
    q = posterior(torch.ones(1, 4, 8, 8))
    assert torch.equal(q.mean, torch.ones(1, 4, 8, 8))
    torch.testing.assert_close(q.log_var.exp(), torch.full((1, 4, 8, 8), STD**2), rtol=1e-12, atol=0.0)
    with pytest.raises(ValueError, match=r"FixedVariance: std \(=0\.0\)"):
        FixedVariance((2,), 0.0)
