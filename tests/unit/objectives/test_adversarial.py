"""Adversarial losses against their formulas, and the weight that balances them against a value by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from lit_vae.objectives import Hinge, LeastSquares, NonSaturating
from lit_vae.objectives.adversarial import adaptive_weight, gradient_norms

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def log1pexp(a):
    return np.log1p(np.exp(a))


FORMULAS = {
    Hinge: (lambda r, f: (np.maximum(0, 1 - r) + np.maximum(0, 1 + f)) / 2, lambda f: -f),
    NonSaturating: (lambda r, f: (log1pexp(-r) + log1pexp(f)) / 2, lambda f: log1pexp(-f)),
    LeastSquares: (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda f: (f - 1) ** 2 / 2),
}


@pytest.mark.parametrize("loss", FORMULAS)
def test_losses_are_means_over_patches_of_the_formulas(loss):
    real, fake = 2 * torch.randn(2, 5, 1, 3, 4)
    of_d, of_g = FORMULAS[loss]
    for found, expected in (
        (loss().discriminator(real, fake), of_d(real.numpy(), fake.numpy())),
        (loss().generator(fake), of_g(fake.numpy())),
    ):
        torch.testing.assert_close(found, torch.from_numpy(expected.mean((1, 2, 3))), **EXACT)


@pytest.mark.parametrize("loss", FORMULAS)
def test_the_generator_is_paid_for_logits_like_those_of_real_images(loss):
    fake = torch.full((1, 1, 2, 2), loss().threshold - 0.3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss().generator(fake).sum(), fake)
    assert (gradient < 0).all()


@pytest.mark.parametrize("loss", FORMULAS)
def test_a_discriminator_that_cannot_tell_ends_at_the_threshold(loss):
    """Real and fake of the same logit: no gradient there, so no side is preferred."""
    logit = torch.full((1, 1, 1, 1), loss().threshold, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss().discriminator(logit, logit).sum(), logit)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), **EXACT)


def test_gradient_norms_are_those_of_the_batch_mean_and_leave_the_graph():
    last = nn.Linear(3, 2, bias=False)
    h, a, b = torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 2)
    x_hat = last(h)
    terms = [(x_hat * a).sum(1), 5.0 * (x_hat * b).sum(1)]
    norms = gradient_norms(terms, last.weight)
    torch.testing.assert_close(norms[0], (a.T @ h / 4).norm(), **EXACT)
    torch.testing.assert_close(norms[1], 5.0 * (b.T @ h / 4).norm(), **EXACT)
    sum(term.mean() for term in terms).backward()
    torch.testing.assert_close(last.weight.grad, (a + 5.0 * b).T @ h / 4, **EXACT)


def test_the_adaptive_weight_is_the_ratio_of_norms_up_to_a_cap():
    weight = adaptive_weight(torch.tensor(3.0), torch.tensor(0.5), 1e4)
    assert weight.item() == pytest.approx(3.0 / 0.5001)
    assert adaptive_weight(torch.tensor(3.0), torch.tensor(0.0), 1e4).item() == 1e4
    assert adaptive_weight(torch.tensor(3.0), torch.tensor(0.0), 10.0).item() == 10.0
