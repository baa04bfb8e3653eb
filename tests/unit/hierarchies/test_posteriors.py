"""The three posteriors against Bayes' rule and torch.distributions."""

import math

import pytest
import torch
from torch import distributions as td

from lit_vae.distributions import DiagonalGaussian
from lit_vae.hierarchies import Absolute, LadderMerge, ResidualNormal
from lit_vae.hierarchies.posteriors import MOST, gaussian
from lit_vae.objectives import Level

CLOSE = {"rtol": 0, "atol": 1e-12}


def some(*shape) -> DiagonalGaussian:
    return gaussian(2.0 * torch.randn(shape), 3)


def normal(q: DiagonalGaussian) -> td.Normal:
    return td.Normal(q.mean, q.std)


def test_a_network_at_zero_gives_a_standard_normal_and_no_output_gives_an_infinite_number():
    p = gaussian(torch.zeros(2, 6, 4, 4), 3)
    assert torch.equal(p.mean, torch.zeros(2, 3, 4, 4))
    assert torch.equal(p.std, torch.ones(2, 3, 4, 4))
    wild = torch.tensor([0.0, 0.0, 1e6, -1e6]).reshape(1, 4, 1, 1)
    torch.testing.assert_close(gaussian(wild, 3).std.flatten(), torch.tensor([MOST, -MOST]).exp())
    both = Level(gaussian(wild, 3), gaussian(-wild, 3), torch.zeros(1, 1, 2, 1, 1))
    assert both.rate().isfinite().all()


def test_the_mean_and_the_deviation_of_a_vector_are_halves_of_its_last_dimension():
    q = gaussian(torch.tensor([[[1.0, 2.0, 0.5, -0.5]]]), 1)
    assert q.mean.tolist() == [[[1.0, 2.0]]]
    torch.testing.assert_close(q.std[0, 0].log(), MOST * torch.tanh(torch.tensor([0.5, -0.5]) / MOST))


def test_half_precision_has_a_deviation_in_full_precision():
    assert gaussian(torch.randn(1, 4, 2, 2).bfloat16(), 3).log_var.dtype == torch.float32


def test_absolute_is_the_message():
    message = some(5, 3, 6, 2, 2)
    assert Absolute()(message, some(5, 3, 6, 2, 2)) is message


def test_the_ladder_merge_is_bayes_rule():
    """The posterior of z ~ p after one observation m of z with variance v, by the Kalman gain."""
    message, p = some(5, 3, 6, 2, 2), some(5, 3, 6, 2, 2)
    q = LadderMerge()(message, p)
    gain = p.std**2 / (p.std**2 + message.std**2)
    torch.testing.assert_close(q.mean, p.mean + gain * (message.mean - p.mean), **CLOSE)
    torch.testing.assert_close(q.std**2, gain * message.std**2, rtol=1e-12, atol=0)
    z = torch.linspace(-3.0, 3.0, 7).reshape(-1, 1, 1, 1, 1, 1)
    unnormalised = normal(p).log_prob(z) + normal(message).log_prob(z)
    ratio = unnormalised - normal(q).log_prob(z)  # the evidence, whatever z is
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=0, atol=1e-8)


@pytest.mark.parametrize("log_var", [-30.0, 20.0])
def test_the_ladder_merge_is_finite_where_one_side_is_certain(log_var):
    certain = DiagonalGaussian(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), log_var), 3)
    other = DiagonalGaussian(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 3)
    for q in (LadderMerge()(certain, other), LadderMerge()(other, certain)):
        assert q.mean.item() == pytest.approx(1.0 if log_var < 0 else 0.0, abs=1e-8)
        assert q.log_var.item() == pytest.approx(min(log_var, 0.0), abs=1e-8)


def test_the_residual_kl_is_nvaes_formula():
    message, p = some(5, 3, 6, 2, 2), some(5, 3, 6, 2, 2)
    q = ResidualNormal()(message, p)
    dmu, dvar = message.mean, message.std**2
    expected = 0.5 * (dmu**2 / p.std**2 + dvar - dvar.log() - 1.0)
    torch.testing.assert_close(q.kl_per_dim(p), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(q.mean, p.mean + dmu, **CLOSE)


@pytest.mark.parametrize("posterior", [Absolute(), LadderMerge(), ResidualNormal()])
def test_the_rate_is_the_kl_of_what_is_sampled(posterior):
    """Trap of NVAE's code: clamps and floors after the formula. The noise tells which deviation was sampled with."""
    p = gaussian(20.0 * torch.randn(2, 3, 4, 1, 1), 3)
    q = posterior(gaussian(20.0 * torch.randn(2, 3, 4, 1, 1), 3), p)
    torch.manual_seed(1)
    z = q.rsample(2)
    torch.manual_seed(1)
    eps = torch.randn(2, 3, 2, 1, 1)
    sampled = td.Normal(q.mean, (z - q.mean) / eps)
    expected = td.kl_divergence(sampled, normal(p)).sum((2, 3, 4)).mean(0)
    torch.testing.assert_close(Level(q, p, z).rate(), expected, rtol=1e-6, atol=1e-9)
    assert (q.std > math.exp(-2 * MOST) * 0.99).all()
