"""Distributions against torch.distributions, closed forms and their own samples, in float64."""

import math

import pytest
import torch
from logistic_mixtures import mixture
from torch import Generator
from torch import distributions as td

from lit_vae.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    DiscretizedLogisticMixture,
    Distribution,
    Laplace,
)
from lit_vae.images import from_uint8
from lit_vae.noise import Draws

EXACT = {"rtol": 1e-12, "atol": 1e-12}
EVENT = (2, 3, 4)  # (C, H, W)


pytestmark = pytest.mark.usefixtures("float64")


# ---- DiagonalGaussian -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_var_shape", [(5, *EVENT), (), (2, 1, 1), (5, 1, 1, 1)])
@pytest.mark.parametrize("leading", [(5,), (7, 5)])
def test_gaussian_log_prob_is_that_of_torch_for_every_broadcast(log_var_shape, leading):
    mean, log_var, x = torch.randn(*leading, *EVENT), torch.randn(log_var_shape), torch.randn(5, *EVENT)
    expected = td.Normal(mean, (0.5 * log_var).exp()).log_prob(x).sum((-3, -2, -1))
    actual = DiagonalGaussian(mean, log_var, event_ndim=3).log_prob(x)
    assert actual.shape == leading
    torch.testing.assert_close(actual, expected, **EXACT)


def test_gaussian_log_prob_of_samples_with_a_leading_dimension():
    q = DiagonalGaussian(torch.randn(5, 3), torch.randn(5, 3))
    z = torch.randn(7, 5, 3)
    torch.testing.assert_close(q.log_prob(z), td.Normal(q.mean, q.std).log_prob(z).sum(-1), **EXACT)


@pytest.mark.parametrize("event", [(6,), EVENT])
def test_gaussian_kl_to_standard_normal_and_to_another_gaussian(event):
    q = DiagonalGaussian(torch.randn(5, *event), torch.randn(5, *event))
    p = DiagonalGaussian(torch.randn(5, *event), torch.randn(5, *event))
    tq, tp = td.Normal(q.mean, q.std), td.Normal(p.mean, p.std)
    standard = td.Normal(torch.zeros(event), torch.ones(event))
    for other, oracle in ((None, standard), (p, tp)):
        per_dim = td.kl_divergence(tq, oracle)
        torch.testing.assert_close(q.kl_per_dim(other), per_dim, **EXACT)
        torch.testing.assert_close(q.kl(other), per_dim.flatten(1).sum(1), **EXACT)
    torch.testing.assert_close(q.kl(q), torch.zeros(5), rtol=0, atol=0)


def test_gaussian_kl_with_one_shared_log_var():
    q, p = (
        DiagonalGaussian(torch.randn(5, 6), torch.tensor(0.3)),
        DiagonalGaussian(torch.randn(5, 6), torch.randn(1, 6)),
    )
    expected = td.kl_divergence(td.Normal(q.mean, q.std), td.Normal(p.mean, p.std.expand(5, 6))).sum(1)
    torch.testing.assert_close(q.kl(p), expected, **EXACT)
    expected = td.kl_divergence(td.Normal(q.mean, q.std), td.Normal(torch.zeros(6), torch.ones(6))).sum(1)
    torch.testing.assert_close(q.kl(), expected, **EXACT)


@pytest.mark.parametrize("other", [None, DiagonalGaussian(torch.zeros(1, 1), torch.zeros(1, 1))])
def test_gaussian_kl_is_never_negative_and_keeps_its_digits_next_to_the_prior(other):
    """In float32 ``exp(t) - t - 1`` is noise of either sign there; the truth is t^2 / 2."""
    log_var = torch.logspace(-5, -2, 1000, dtype=torch.float32)
    log_var = torch.cat([log_var, -log_var]).unsqueeze(1)
    kl = DiagonalGaussian(torch.zeros_like(log_var), log_var).kl(other)
    exact = DiagonalGaussian(torch.zeros(2000, 1), log_var.double()).kl(other)
    assert kl.min() >= 0.0
    torch.testing.assert_close(kl.double(), exact, rtol=0, atol=2e-9)


@pytest.mark.parametrize("prior", [None, "other"])
def test_gaussian_monte_carlo_kl_within_three_standard_errors(prior):
    q = DiagonalGaussian(torch.randn(4, 3), torch.randn(4, 3))
    p = DiagonalGaussian(torch.zeros(4, 3), torch.zeros(4, 3))
    if prior == "other":
        p = DiagonalGaussian(torch.randn(4, 3), torch.randn(4, 3))
    z = q.rsample(50_000, Draws(1, 0, torch.arange(4)))
    draws = q.log_prob(z) - p.log_prob(z)
    standard_error = draws.std(0) / math.sqrt(len(draws))
    kl = q.kl(None if prior is None else p)
    assert ((draws.mean(0) - kl).abs() < 3.0 * standard_error).all()


def test_gaussian_rsample_is_mean_plus_std_times_noise_with_gradient_to_both():
    mean, log_var = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    z = DiagonalGaussian(mean, log_var).rsample(7, Draws(3, 0, torch.arange(5)))
    eps = Draws(3, 0, torch.arange(5)).normal(7, (3,)).double()
    torch.testing.assert_close(z, mean + (0.5 * log_var).exp() * eps, **EXACT)
    grad_mean, grad_log_var = torch.autograd.grad(z.sum(), (mean, log_var))
    torch.testing.assert_close(grad_mean, torch.full((5, 3), 7.0), **EXACT)
    torch.testing.assert_close(grad_log_var, (0.5 * (0.5 * log_var).exp() * eps).sum(0), **EXACT)


def test_gaussian_samples_of_given_noise_in_parts_are_those_at_once():
    q, draws = DiagonalGaussian(torch.randn(5, 3), torch.randn(5, 3)), Draws(3, 0, torch.arange(5))
    at_once = q.rsample(7, Draws(3, 0, torch.arange(5)))
    assert torch.equal(torch.cat([q.rsample(3, draws), q.rsample(4, draws, first=3)]), at_once)
    one = DiagonalGaussian(q.mean[2:3], q.log_var[2:3]).rsample(7, Draws(3, 0, torch.tensor([2])))
    assert torch.equal(one, at_once[:, 2:3])


def test_parameters_of_each_sample_have_a_draw_each():
    mean, log_var = torch.randn(7, 5, 3), torch.randn(7, 5, 3)  # as of a level below seven draws
    z = DiagonalGaussian(mean, log_var, event_ndim=1).rsample(7, Draws(3, 0, torch.arange(5)))
    eps = Draws(3, 0, torch.arange(5)).normal(7, (3,)).double()
    torch.testing.assert_close(z, mean + (0.5 * log_var).exp() * eps, **EXACT)
    assert DiagonalGaussian(mean, log_var, event_ndim=1).rsample(7).shape == (7, 5, 3)


def test_gaussian_sample_has_no_gradient_and_detach_keeps_the_numbers():
    mean = torch.randn(5, *EVENT, requires_grad=True)
    q = DiagonalGaussian(mean, torch.randn((), requires_grad=True), event_ndim=2)
    assert not q.sample().requires_grad
    detached = q.detach()
    x = torch.randn(5, *EVENT)
    assert not detached.log_prob(x).requires_grad
    torch.testing.assert_close(detached.log_prob(x), q.log_prob(x), rtol=0, atol=0)


def test_gaussian_sum_over_a_colour_image_not_a_mean():
    mean = torch.zeros(1, *EVENT)
    x = torch.full((1, *EVENT), 2.0)
    expected = -24 * (2.0 + 0.5 * math.log(2.0 * math.pi))
    assert DiagonalGaussian(mean, torch.zeros(())).log_prob(x).item() == pytest.approx(expected, rel=1e-13)


# ---- Laplace and Bernoulli ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(5,), (7, 5)])
@pytest.mark.parametrize("log_scale_shape", [(), (5, *EVENT)])
def test_laplace_log_prob_is_that_of_torch(leading, log_scale_shape):
    mean, log_scale, x = torch.randn(*leading, *EVENT), torch.randn(log_scale_shape), torch.randn(5, *EVENT)
    expected = td.Laplace(mean, log_scale.exp()).log_prob(x).sum((-3, -2, -1))
    torch.testing.assert_close(Laplace(mean, log_scale).log_prob(x), expected, **EXACT)


@pytest.mark.parametrize("leading", [(5,), (7, 5)])
def test_bernoulli_log_prob_is_that_of_torch_on_binary_images(leading):
    logits = 30.0 * torch.randn(*leading, *EVENT)  # beyond +-20, where F.softplus would turn linear
    t = torch.randint(2, (5, *EVENT)).double()
    expected = td.Bernoulli(logits=logits).log_prob(t.expand_as(logits)).sum((-3, -2, -1))
    torch.testing.assert_close(Bernoulli(logits).log_prob(2.0 * t - 1.0), expected, **EXACT)


def test_bernoulli_with_soft_targets_is_a_cross_entropy_least_at_the_target():
    t = torch.rand(3, *EVENT)
    logits = torch.logit(t).requires_grad_()
    cross_entropy = -Bernoulli(logits).log_prob(2.0 * t - 1.0)
    entropy = -(t * t.log() + (1 - t) * (1 - t).log()).flatten(1).sum(1)
    torch.testing.assert_close(cross_entropy, entropy, **EXACT)
    (grad,) = torch.autograd.grad(cross_entropy.sum(), logits)
    torch.testing.assert_close(grad, torch.zeros_like(grad), **EXACT)


def test_bernoulli_gradient_at_a_logit_of_exactly_zero():
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(Bernoulli(logits).log_prob(torch.tensor([[[[-1.0, 1.0]]]])).sum(), logits)
    assert grad.flatten().tolist() == [-0.5, 0.5]


def test_bernoulli_mean_is_that_of_values_minus_one_and_one():
    logits = torch.randn(2, *EVENT) * 5.0
    torch.testing.assert_close(Bernoulli(logits).mean, 2.0 * torch.sigmoid(logits) - 1.0, **EXACT)


# ---- sampling -------------------------------------------------------------------------------------------------------

DRAWS = 20_000


def standard_deviation(name: str) -> float:
    return {"gaussian": 0.7, "laplace": math.sqrt(2.0) * 0.4}[name]


@pytest.mark.parametrize("name", ["gaussian", "laplace", "bernoulli"])
def test_sample_moments_within_three_standard_errors(name):
    parameters = torch.tensor([-1.5, 0.0, 0.3, 2.0]).reshape(1, 2, 2)
    many = parameters.expand(DRAWS, 1, 2, 2)
    distribution: Distribution = {
        "gaussian": DiagonalGaussian(many, torch.tensor(2.0 * math.log(0.7))),
        "laplace": Laplace(many, torch.tensor(math.log(0.4))),
        "bernoulli": Bernoulli(many),
    }[name]
    x = distribution.sample(Generator().manual_seed(2))
    mean = distribution.mean[0]
    variance = 1.0 - mean**2 if name == "bernoulli" else torch.full_like(mean, standard_deviation(name) ** 2)
    assert ((x.mean(0) - mean).abs() < 3.0 * (variance / DRAWS).sqrt()).all()
    if name == "bernoulli":
        assert set(x.unique().tolist()) == {-1.0, 1.0}
    else:
        squares = (x - mean).square()
        assert ((squares.mean(0) - variance).abs() < 3.0 * squares.std(0) / math.sqrt(DRAWS)).all()


def test_laplace_sample_has_the_quantiles_of_the_distribution():
    x = Laplace(torch.zeros(DRAWS, 1, 1, 1), torch.zeros(())).sample(Generator().manual_seed(4)).flatten()
    for quantile in (0.05, 0.25, 0.75, 0.95):
        below = (x < td.Laplace(0.0, 1.0).icdf(torch.tensor(quantile))).double().mean()
        assert abs(below - quantile) < 3.0 * math.sqrt(quantile * (1.0 - quantile) / DRAWS)


def all_kinds(dtype=torch.float64) -> dict[str, Distribution]:
    mean = torch.randn(4, 3, 2, 2, dtype=dtype)
    return {
        "gaussian": DiagonalGaussian(mean, torch.zeros((), dtype=dtype)),
        "laplace": Laplace(mean, torch.zeros((), dtype=dtype)),
        "bernoulli": Bernoulli(mean),
        "mixture": mixture(3, (4,), (2, 2), dtype=dtype),
    }


@pytest.mark.parametrize("name", ["gaussian", "laplace", "bernoulli", "mixture"])
def test_a_generator_makes_sampling_repeatable_and_leaves_the_global_state_alone(name):
    distribution = all_kinds()[name]
    state = torch.get_rng_state()
    first = distribution.sample(Generator().manual_seed(5))
    second = distribution.sample(Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, distribution.sample(Generator().manual_seed(6)))
    distribution.sample()
    assert not torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["gaussian", "laplace", "bernoulli", "mixture"])
def test_leading_dimensions_are_independent_batches(name):
    """Parameters (L, B, ...) against x (B, ...) give what each of the L gives alone."""
    torch.manual_seed(1)
    means, x = torch.randn(3, 4, 2, 2, 2), from_uint8(torch.randint(256, (4, 2, 2, 2))).double()
    stacked: Distribution
    if name == "mixture":
        stacked = mixture(2, (3, 4), (2, 2))
        parts = (stacked.logits, stacked.means, stacked.log_scales, stacked.coefficients)
        single = [DiscretizedLogisticMixture(*(p[i] for p in parts)) for i in range(3)]
    elif name == "bernoulli":
        stacked, single = Bernoulli(means), [Bernoulli(m) for m in means]
    elif name == "laplace":
        stacked, single = Laplace(means, torch.zeros(())), [Laplace(m, torch.zeros(())) for m in means]
    else:
        stacked = DiagonalGaussian(means, torch.zeros(()), event_ndim=3)
        single = [DiagonalGaussian(m, torch.zeros(())) for m in means]
    assert stacked.log_prob(x).shape == (3, 4)
    torch.testing.assert_close(stacked.log_prob(x), torch.stack([s.log_prob(x) for s in single]), **EXACT)
    torch.testing.assert_close(stacked.mean, torch.stack([s.mean for s in single]), **EXACT)
    assert stacked.sample().shape == (3, 4, 2, 2, 2)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "bernoulli", "mixture"])
def test_half_precision_parameters_are_summed_in_float32(name):
    """Under mixed precision a decoder puts out bfloat16: its numbers are taken, its arithmetic is not."""
    x = from_uint8(torch.randint(256, (4, 3, 2, 2)))
    distribution = all_kinds(torch.bfloat16)[name]
    log_prob = distribution.log_prob(x)
    assert log_prob.dtype == distribution.mean.dtype == distribution.sample().dtype == torch.float32
    again = {
        "gaussian": lambda d: DiagonalGaussian(d.mean.double(), d.log_var.double()),
        "laplace": lambda d: Laplace(d.mean.double(), d.log_scale.double()),
        "bernoulli": lambda d: Bernoulli(d.logits.double()),
        "mixture": lambda d: DiscretizedLogisticMixture(
            d.logits.double(), d.means.double(), d.log_scales.double(), d.coefficients.double()
        ),
    }[name](distribution)
    torch.testing.assert_close(log_prob.double(), again.log_prob(x.double()), rtol=1e-5, atol=1e-4)


# ---- noise of images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Bernoulli, Categorical, DiagonalGaussian, DiscretizedLogisticMixture, Laplace])
def test_a_draw_with_noise_of_images_is_of_the_distribution_and_the_same_in_any_batch(kind):
    mixture = [(2, 3, 4), (2, *EVENT), (2, *EVENT), (2, 1, 3, 4)]
    shapes = {Bernoulli: [EVENT], Categorical: [(256, *EVENT)], DiscretizedLogisticMixture: mixture}
    parameters = [torch.randn(1, *shape) - 1.0 for shape in shapes.get(kind, [EVENT, EVENT])]

    def drawn(ids, source=None):
        many = kind(*(p.expand(len(ids), *p.shape[1:]) for p in parameters))
        return many.sample(source or Draws(seed=0, time=0, ids=torch.tensor(ids)))

    x, y = drawn(range(4000)), drawn(range(4000), Generator().manual_seed(0))
    torch.testing.assert_close(x[[7, 2000]], torch.cat([drawn([7]), drawn([2000])]), rtol=0, atol=0)
    for ours, theirs in ((x, y), (x.square(), y.square())):
        error = ((ours.var(0) + theirs.var(0)) / 4000).sqrt()
        assert ((ours.mean(0) - theirs.mean(0)).abs() <= 5.0 * error).all()
    correlations = [t.flatten(1).T.corrcoef() for t in (x, y)]
    torch.testing.assert_close(*correlations, rtol=0.0, atol=0.12)  # 5 standard errors of a difference
