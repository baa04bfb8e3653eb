"""A second VAE on latents: its bound, what it draws, and which files it refuses."""

import math

import pytest
import torch
from torch import distributions as td

from lit_vae.noise import FIXED, Draws
from lit_vae.tools.priors.flow import FittedFlow
from lit_vae.tools.priors.second_stage import SecondStage

COVARIANCE = torch.tensor([[2.0, 1.2], [1.2, 0.9]], dtype=torch.float64)
MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)
DENSITY = td.MultivariateNormal(MEAN, COVARIANCE)
N = 4000
NOBODY = torch.full((N,), -1)


def gaussian(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    eps = torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return MEAN + eps @ torch.linalg.cholesky(COVARIANCE).T, NOBODY


def linear(d: int, num_classes: int = 0) -> SecondStage:
    """Affine networks of zeros, for latents of mean zero and variance one: q = N(0, I) and p(u|v) = N(0, I)."""
    network = SecondStage.new(d, num_classes, hidden=()).double().requires_grad_(False)
    for parameter in network.parameters():
        parameter.zero_()
    return SecondStage(network, torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64))


def optimal() -> SecondStage:
    """Probabilistic PCA: the smallest eigenvalue is the variance of the noise, and the posterior is diagonal."""
    stage = linear(2)
    stage = SecondStage(stage.network, MEAN, COVARIANCE.diagonal().sqrt())
    scale = 1.0 / stage.std
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * COVARIANCE * scale)
    gamma = eigenvalues.min()
    factors = vectors * (eigenvalues - gamma).sqrt()
    decoder, encoder = stage.network.decoder.layers[0], stage.network.encoder.layers[0]
    decoder.weight.copy_(factors)
    encoder.weight[:2] = factors.T / eigenvalues[:, None]
    encoder.bias[2:] = (gamma / eigenvalues).log()
    stage.network.likelihood.log_var.copy_(gamma.log())
    return stage


def test_the_bound_of_the_optimal_stage_of_a_gaussian_is_its_density():
    z, y = gaussian(0)
    torch.testing.assert_close(optimal().log_prob(z, y), DENSITY.log_prob(z), rtol=1e-10, atol=1e-10)


def test_the_bound_is_below_the_density_by_the_kl_from_the_posterior():
    stage = optimal()
    stage.network.encoder.layers[0].bias[2:] += 1.0  # variances times e
    z, y = gaussian(0)
    gap = DENSITY.log_prob(z) - stage.log_prob(z, y)
    error = gap.std() / math.sqrt(N)
    assert error < 0.03
    assert gap.mean().item() == pytest.approx(math.e - 2.0, abs=4.0 * error.item())


def test_a_trained_stage_has_a_bound_a_little_below_the_density_and_draws_the_same_moments():
    stage = SecondStage.fit(gaussian, 0, 150, 0)
    z, y = gaussian(10**6)
    gap = DENSITY.log_prob(z) - stage.log_prob(z, y)
    assert 0.0 < gap.mean().item() < 0.02  # 0.80 for independent dimensions
    draws = stage.sample(y, 1.0, 0)
    torch.testing.assert_close(draws.mean(0), MEAN, rtol=0, atol=0.15)
    torch.testing.assert_close(draws.T.cov(), COVARIANCE, rtol=0, atol=0.3)
    torch.testing.assert_close(stage.sample(y[:5], 1.0, 0), draws[:5], rtol=1e-12, atol=1e-12)
    assert stage.sample(y, 0.0, 0).std(0).max() < 1e-12


def test_the_noise_of_the_bound_is_not_that_of_the_latents():
    """q(v|u) = N(u, I) beside p(u|v) = N(0, I): the KL is d / 2 for u ~ N(0, I), at noise that is independent of u."""
    stage = linear(2)
    stage.network.encoder.layers[0].weight[:2] = torch.eye(2)
    z = Draws(0, FIXED, torch.arange(N)).normal(1, (2,))[0].double()
    gap = td.Normal(0.0, 1.0).log_prob(z).sum(1) - stage.log_prob(z, NOBODY)
    assert gap.mean().item() == pytest.approx(1.0, abs=4.0 * gap.std().item() / math.sqrt(N))


def test_each_label_has_a_density_of_its_own():
    stage = linear(1, num_classes=2)
    stage.network.decoder.layers[0].weight[0, 2] = 5.0  # of the latent, of label 0, of label 1
    assert stage.size == (2, 1)
    z, y = torch.tensor([[0.3], [5.3], [0.3]]), torch.tensor([0, 1, 1])
    expected = td.Normal(5.0 * y[:, None], 1.0).log_prob(z)[:, 0].double()
    torch.testing.assert_close(stage.log_prob(z, y), expected, rtol=1e-6, atol=1e-6)
    assert stage.sample(y, 0.0, 0)[:, 0].tolist() == [0.0, 5.0, 5.0]


def test_a_file_gives_back_the_same_bound_and_one_of_a_flow_is_refused():
    stage = SecondStage(SecondStage.new(2, 0).double(), MEAN, COVARIANCE.diagonal().sqrt())
    z, y = gaussian(1)
    assert torch.equal(SecondStage.of(stage.state()).log_prob(z, y), stage.log_prob(z, y))
    flow = FittedFlow(FittedFlow.new(2, 0).double(), MEAN, COVARIANCE.diagonal().sqrt())
    with pytest.raises(ValueError, match="its weights are of another second stage"):
        SecondStage.of(flow.state())
