"""Outputs of networks that diverge: no distribution turns a large number into an infinite or an undefined one."""

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from lit_vae import distributions as D
from lit_vae import likelihoods as lk

BATCH, LEVELS = 3, 256
X = torch.tensor([-1.0, 1.0 / 255.0, 1.0]).view(BATCH, 1, 1, 1)  # both open intervals of a logistic, and one between
NUMBERS = (-1e4, -100.0, 0.0, 100.0, 1e4)
PAIRS = list(product(NUMBERS, NUMBERS))


def of(number: float, *shape: int) -> Tensor:
    return torch.full((BATCH, *shape), number, requires_grad=True)


def uneven(number: float, *shape: int) -> Tensor:
    """Logits of which one is far from all others."""
    values = torch.zeros(BATCH, *shape)
    values[:, 0] = number
    return values.requires_grad_()


DISTRIBUTIONS: dict[str, Callable[..., tuple[Sequence[Tensor], D.Distribution]]] = {
    "gaussian": lambda a, b: (p := (of(a, 1, 1, 1), of(b, 1, 1, 1)), D.DiagonalGaussian(*p)),
    "one variance": lambda a, b: (p := (of(a, 1, 1, 1), torch.tensor(b).requires_grad_()), D.DiagonalGaussian(*p, 3)),
    "laplace": lambda a, b: (p := (of(a, 1, 1, 1), of(b, 1, 1, 1)), D.Laplace(*p)),
    "bernoulli": lambda a, _: (p := (of(a, 1, 1, 1),), D.Bernoulli(*p)),
    "categorical": lambda a, _: (p := (uneven(a, LEVELS, 1, 1, 1),), D.Categorical(*p)),
    "one logistic": lambda a, b: (
        p := (of(0.0, 1, 1, 1), of(a, 1, 1, 1, 1), of(b, 1, 1, 1, 1)),
        D.DiscretizedLogisticMixture(*p, torch.zeros(BATCH, 1, 0, 1, 1)),
    ),
    "logistics": lambda a, b: (
        p := (uneven(a, 2, 1, 1), of(0.5, 2, 1, 1, 1), of(b, 2, 1, 1, 1)),
        D.DiscretizedLogisticMixture(*p, torch.zeros(BATCH, 2, 0, 1, 1)),
    ),
    "pixel gaussian": lambda a, b: (p := (of(a, 1, 1, 1), of(b, 1, 1, 1)), lk.PixelGaussian()(torch.cat(p, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_log_prob_its_gradient_mean_and_samples_are_finite(name, a, b):
    parameters, distribution = DISTRIBUTIONS[name](a, b)
    log_prob = distribution.log_prob(X)
    gradients = torch.autograd.grad(log_prob.sum(), parameters)
    for number in (log_prob, distribution.mean, distribution.sample(), *gradients):
        assert torch.isfinite(number).all()


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_kl_and_its_gradient_are_finite(a, b):
    mean, log_var, prior_mean, prior_log_var = parameters = of(a, 2), of(b, 2), of(-a, 2), of(-b, 2)
    posterior, prior = D.DiagonalGaussian(mean, log_var), D.DiagonalGaussian(prior_mean, prior_log_var)
    kl = posterior.kl() + posterior.kl(prior)
    for number in (kl, posterior.rsample(1), *torch.autograd.grad(kl.sum(), parameters)):
        assert torch.isfinite(number).all()


def test_within_the_bounds_no_bit_moves_and_the_gradient_is_whole():
    log_var = torch.linspace(*D.LOG_SCALES, 1001)[1:-1].requires_grad_()
    held = D.DiagonalGaussian(torch.zeros(999), log_var).log_var
    assert torch.equal(held, log_var)
    (gradient,) = torch.autograd.grad(held.sum(), log_var)
    assert torch.equal(gradient, torch.ones(999))


def test_beyond_the_bounds_a_posterior_is_that_of_latent_diffusion():
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    mean, log_var = torch.randn(2, 4, 2, 2), torch.tensor([-1e4, -31.0, 21.0, 89.0]).view(1, 4, 1, 1).expand(2, 4, 2, 2)
    theirs, ours = DiagonalGaussianDistribution(torch.cat([mean, log_var], 1)), D.DiagonalGaussian(mean, log_var)
    assert torch.equal(ours.log_var, theirs.logvar)
    assert torch.equal(ours.std, theirs.std)
    torch.testing.assert_close(ours.kl(), theirs.kl(), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("likelihood", [lk.LearnedGaussian(), lk.Laplace()])
@pytest.mark.parametrize("number", [-1e4, 1e4])
def test_the_temperature_of_a_learned_scale_is_finite_and_not_zero(likelihood, number):
    with torch.no_grad():
        next(likelihood.parameters()).fill_(number)
    assert 0.0 < likelihood.temperature.item() < torch.inf
