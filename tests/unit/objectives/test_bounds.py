"""ELBO, IWAE and DReG term by term, against torch.distributions and formulas written out."""

import math

import pytest
import torch
from torch import distributions as td

from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, DReG, Level
from lit_vae.objectives.bounds import importance_weighted_bound, log_weights
from lit_vae.schedules import Cyclical, LinearWarmup

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def grads(loss, *leaves):
    return torch.autograd.grad(loss.sum(), leaves, retain_graph=True, allow_unused=True)


def log_joint(problem, z):
    """log p(x|z), log p(z) and log q(z|x) by torch.distributions, each (L, B)."""
    image = (z @ problem.weight).unflatten(-1, (1, 2, 3))
    likelihood = td.Normal(image, math.exp(-0.25)).log_prob(problem.x).sum((-3, -2, -1))
    prior = td.Normal(problem.prior_mean, (0.5 * problem.prior_log_var).exp()).log_prob(z).sum(-1)
    posterior = td.Normal(problem.mean, (0.5 * problem.log_var).exp()).log_prob(z).sum(-1)
    return likelihood, prior, posterior


# ---- ELBO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_samples", [1, 4])
def test_elbo_terms_are_those_of_torch_and_samples_are_averaged(problem, num_samples):
    terms = problem.terms(ELBO(num_samples=num_samples), draws=problem.draws())
    z = problem.posterior.rsample(num_samples, problem.draws())
    likelihood, _, _ = log_joint(problem, z)
    posterior, prior = problem.posterior, problem.prior
    rate = td.kl_divergence(td.Normal(posterior.mean, posterior.std), td.Normal(prior.mean, prior.std)).sum(1)
    torch.testing.assert_close(terms.distortion, -likelihood.sum(0) / num_samples, **EXACT)
    torch.testing.assert_close(terms.rate, rate, **EXACT)
    torch.testing.assert_close(terms.loss, terms.rate + terms.distortion, **EXACT)
    torch.testing.assert_close(terms.elbo, -(terms.rate + terms.distortion), rtol=0, atol=0)


def test_elbo_is_a_lower_bound_that_the_exact_posterior_makes_tight(problem):
    """p(x) of this linear Gaussian model in closed form; the gap of any q is KL(q || p(z|x))."""
    v = math.exp(-0.5)
    w, s = problem.weight, problem.prior_log_var.exp()
    mean = problem.prior_mean @ w
    marginal = td.MultivariateNormal(mean, w.T @ (s[:, None] * w) + v * torch.eye(6)).log_prob(problem.x.flatten(1))
    precision = torch.diag(1.0 / s) + w @ w.T / v
    exact_mean = torch.linalg.solve(precision, ((problem.prior_mean / s) + problem.x.flatten(1) @ w.T / v).T).T
    q, exact = problem.posterior, td.MultivariateNormal(exact_mean, precision_matrix=precision)
    gap = td.kl_divergence(td.MultivariateNormal(q.mean, torch.diag_embed(q.log_var.exp())), exact)
    # the analytic expectation of the squared error, where the objective has samples
    spread = ((w @ w.T).diagonal() * q.log_var.exp()).sum(1) / (2 * v)
    z = q.mean[None]
    terms = ELBO()(problem.x, [Level(q, problem.prior, z)], problem.decode(z)).terms
    torch.testing.assert_close(terms["elbo"] - spread, marginal - gap, **EXACT)


def test_beta_free_bits_and_distortion_weight_enter_the_loss_but_not_the_terms(problem):
    plain = problem.terms(ELBO(), draws=problem.draws())
    for objective, expected in (
        (ELBO(beta=4.0), plain.distortion + 4.0 * plain.rate),
        (ELBO(beta=0.0), plain.distortion),
        (ELBO(distortion_weight=0.0), plain.rate),
        (ELBO(free_bits=1e3), plain.distortion + 2 * 1e3),
        (ELBO(free_bits=1e3, beta=0.5), plain.distortion + 0.5 * 2 * 1e3),
    ):
        terms = problem.terms(objective, step=0, draws=problem.draws())
        torch.testing.assert_close(terms.loss, expected, **EXACT)
        torch.testing.assert_close(terms.rate, plain.rate, rtol=0, atol=0)
        torch.testing.assert_close(terms.distortion, plain.distortion, rtol=0, atol=0)


def test_beta_follows_its_schedule_in_training_and_is_final_in_evaluation(problem):
    objective = ELBO(beta=LinearWarmup(steps=10, end=2.0))
    plain = problem.terms(ELBO(), draws=problem.draws())
    for step, beta in ((0, 0.0), (5, 1.0), (10, 2.0), (None, 2.0)):
        terms = problem.terms(objective, step=step, draws=problem.draws())
        torch.testing.assert_close(terms.loss, plain.distortion + beta * plain.rate, **EXACT)
        assert terms.scalars == ({} if step is None else {"beta": beta})
    cyclical = ELBO(beta=Cyclical(period=10, cycles=3))
    assert problem.terms(cyclical, step=10).scalars == {"beta": 0.0}
    torch.testing.assert_close(problem.terms(cyclical, draws=problem.draws()).loss, plain.loss, **EXACT)


def test_gradient_of_the_elbo_is_that_of_finite_differences(problem):
    leaves = (problem.mean, problem.log_var, problem.weight, problem.prior_mean, problem.prior_log_var)

    def loss(*leaves):
        other = problem._replace(**dict(zip(problem._fields[1:], leaves, strict=True)))
        return other.terms(ELBO(num_samples=2), draws=problem.draws()).loss

    assert torch.autograd.gradcheck(loss, leaves)


# ---- importance weighting -------------------------------------------------------------------------------------------


def test_log_weights_are_those_of_torch(problem):
    z = torch.randn(4, 5, 2)
    likelihood, prior, posterior = log_joint(problem, z)
    level = Level(problem.posterior, problem.prior, z)
    actual = log_weights(problem.decode(z).log_prob(problem.x), [level])
    torch.testing.assert_close(actual, likelihood + prior - posterior, **EXACT)


def test_bound_is_the_logarithm_of_the_mean_weight_and_survives_extremes():
    log_w = torch.randn(6, 5)
    torch.testing.assert_close(importance_weighted_bound(log_w), log_w.exp().mean(0).log(), **EXACT)
    shifted = importance_weighted_bound(log_w - 1e5)
    torch.testing.assert_close(shifted, log_w.exp().mean(0).log() - 1e5, rtol=1e-12, atol=0)
    torch.testing.assert_close(importance_weighted_bound(log_w[:1]), log_w[0], rtol=0, atol=0)


@pytest.mark.parametrize("objective", [IWAE, DReG])
@pytest.mark.parametrize("k", [1, 5])
def test_value_and_terms_for_given_noise(problem, objective, k):
    terms = problem.terms(objective(k), draws=problem.draws())
    likelihood, prior, posterior = log_joint(problem, problem.posterior.rsample(k, problem.draws()))
    bound = (likelihood + prior - posterior).exp().mean(0).log()
    torch.testing.assert_close(terms.loss, -bound, **EXACT)
    elbo = problem.terms(ELBO(num_samples=k), draws=problem.draws())
    torch.testing.assert_close(terms.rate, elbo.rate, **EXACT)
    torch.testing.assert_close(terms.distortion, elbo.distortion, **EXACT)
    assert not terms.rate.requires_grad
    assert not terms.distortion.requires_grad


def test_iwae_of_one_sample_is_the_elbo_in_expectation(new_problem):
    problem = new_problem(20_000, same_image=True)
    draws = -problem.terms(IWAE(1), draws=problem.draws()).loss - problem.terms(ELBO()).elbo
    assert abs(draws.mean()) < 3.0 * draws.std() / math.sqrt(len(draws))


def test_iwae_gradient_is_weighted_by_the_normalised_weights(problem):
    """Burda et al. 2016, eq. 13, with z a function of the posterior's parameters."""
    leaves = (problem.mean, problem.log_var, problem.weight, problem.prior_mean, problem.prior_log_var)
    actual = grads(problem.terms(IWAE(5), draws=problem.draws()).loss, *leaves)
    likelihood, prior, posterior = log_joint(problem, problem.posterior.rsample(5, problem.draws()))
    log_w = likelihood + prior - posterior
    expected = grads(-(log_w.exp() / log_w.exp().sum(0)).detach() * log_w, *leaves)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, **EXACT)


@pytest.mark.parametrize("k", [1, 2, 8])
def test_dreg_encoder_gradient_is_the_formula_of_the_paper(problem, k):
    """Tucker et al. 2019, eq. 8: sum_k w~_k^2 (d log w_k / d z_k) (d z_k / d phi), the density's own phi held."""
    actual = grads(problem.terms(DReG(k), draws=problem.draws()).loss, problem.mean, problem.log_var)
    eps = problem.draws().normal(k, (2,)).double()
    std = problem.posterior.std.detach()
    z = (problem.mean.detach() + std * eps).requires_grad_()
    likelihood, prior, posterior = log_joint(problem, z)
    log_w = likelihood + prior - posterior
    (d_log_w,) = torch.autograd.grad(log_w.sum(), z)
    squared = (log_w.exp() / log_w.exp().sum(0)).detach().square().unsqueeze(-1)
    torch.testing.assert_close(actual[0], -(squared * d_log_w).sum(0), **EXACT)
    torch.testing.assert_close(actual[1], -(squared * d_log_w * 0.5 * std * eps).sum(0), **EXACT)


def test_dreg_gives_decoder_and_prior_the_gradient_of_iwae(problem):
    leaves = (problem.weight, problem.prior_mean, problem.prior_log_var)
    iwae = grads(problem.terms(IWAE(6), draws=problem.draws()).loss, *leaves)
    dreg = grads(problem.terms(DReG(6), draws=problem.draws()).loss, *leaves)
    for a, b in zip(dreg, iwae, strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("k", [1, 4, 32])
def test_dreg_encoder_gradient_is_that_of_iwae_in_expectation_with_less_variance(new_problem, k):
    problem = new_problem(10_000, same_image=True)  # every row is one draw of the gradient at the same parameters
    leaves = (problem.mean, problem.log_var)
    iwae = torch.cat(grads(problem.terms(IWAE(k), draws=problem.draws(1)).loss, *leaves), 1)
    dreg = torch.cat(grads(problem.terms(DReG(k), draws=problem.draws(2)).loss, *leaves), 1)
    standard_error = ((iwae.var(0) + dreg.var(0)) / len(iwae)).sqrt()
    assert ((iwae.mean(0) - dreg.mean(0)).abs() < 3.0 * standard_error).all()
    if k > 1:
        assert dreg.var(0).sum() < iwae.var(0).sum()


def test_dreg_gradient_vanishes_where_the_posterior_is_exact_and_that_of_iwae_does_not():
    """All weights are equal then, whatever z: the doubly reparametrised estimator has no noise there."""
    from lit_vae.distributions import DiagonalGaussian

    x = torch.randn(5, 1, 1, 1)
    # p(z) = N(0, 1), p(x|z) = N(z, 1): p(z|x) = N(x / 2, 1 / 2)
    mean, log_var = (x.flatten(1) / 2).requires_grad_(), torch.full((5, 1), -math.log(2.0), requires_grad=True)
    prior = DiagonalGaussian(torch.zeros(5, 1), torch.zeros(5, 1))

    def decode(z):
        return DiagonalGaussian(z.unflatten(-1, (1, 1, 1)), torch.zeros(()), event_ndim=3)

    for objective in (DReG(4), IWAE(4)):
        posterior = DiagonalGaussian(mean, log_var)
        z = posterior.rsample(4, Draws(7, 0, torch.arange(len(x))))
        loss = objective(x, [Level(posterior, prior, z)], decode(z)).terms["loss"]
        marginal = td.Normal(0.0, math.sqrt(2.0)).log_prob(x).flatten()
        torch.testing.assert_close(-loss, marginal, **EXACT)
        largest = max(g.abs().max() for g in grads(loss, mean, log_var))
        assert (largest < 1e-12) == isinstance(objective, DReG)


def test_dreg_evaluates_without_a_graph(problem):
    with torch.no_grad():
        dreg = problem.terms(DReG(3), draws=problem.draws())
        iwae = problem.terms(IWAE(3), draws=problem.draws())
    torch.testing.assert_close(dreg.loss, iwae.loss, **EXACT)


@pytest.mark.parametrize("objective", [ELBO, IWAE, DReG])
def test_objectives_take_maps_as_latents_and_leave_the_global_noise_alone(objective):
    from lit_vae.distributions import DiagonalGaussian

    posterior = DiagonalGaussian(torch.randn(3, 2, 2, 2), torch.randn(3, 2, 2, 2))
    prior = DiagonalGaussian(torch.zeros(3, 2, 2, 2), torch.zeros(3, 2, 2, 2))
    flat = [DiagonalGaussian(d.mean.flatten(1), d.log_var.flatten(1)) for d in (posterior, prior)]
    x = torch.randn(3, 2, 2, 2)
    decode = lambda z: DiagonalGaussian(z.unflatten(2, (2, 2, 2)) if z.ndim == 3 else z, torch.zeros(()), 3)  # noqa: E731
    state = torch.get_rng_state()
    found = []
    for q, p in ((posterior, prior), flat):
        z = q.rsample(2, Draws(7, 0, torch.arange(len(x))))
        found.append(objective(num_samples=2)(x, [Level(q, p, z)], decode(z)).terms)
    assert torch.equal(state, torch.get_rng_state())
    for name, value in found[0].items():
        assert value.shape == (3,)
        torch.testing.assert_close(value, found[1][name], **EXACT)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [ELBO, IWAE, DReG])
def test_no_samples(objective):
    with pytest.raises(ValueError) as error:
        objective(num_samples=0)
    assert str(error.value) == (f"{objective.__name__}: num_samples (=0) must be at least 1.")


def test_negative_free_bits():
    with pytest.raises(ValueError) as error:
        ELBO(free_bits=-0.1)
    assert str(error.value) == ("ELBO: free_bits (=-0.1) must be at least 0.")
