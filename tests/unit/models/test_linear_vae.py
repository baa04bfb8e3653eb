"""A linear VAE with a Gaussian decoder is probabilistic PCA (Tipping and Bishop 1999), whose likelihood is known."""

import math

import pytest
import torch
from torch import Generator
from torch import distributions as td

from lit_vae.images import Batch
from lit_vae.likelihoods import FixedGaussian, LearnedGaussian
from lit_vae.models.pca import Moments, solve
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, Level

SHAPE, SIZE, LATENT = (1, 2, 3), 6, 2
LABELS = torch.zeros(400, dtype=torch.long)


def images(number: int = 400) -> torch.Tensor:
    """Correlated in a few directions, with noise in all."""
    generator = Generator().manual_seed(5)
    loadings = torch.randn(SIZE, LATENT, generator=generator) * torch.tensor([2.0, 1.0])
    noise = 0.5 * torch.randn(number, SIZE, generator=generator)
    return (torch.randn(number, LATENT, generator=generator) @ loadings.T + noise + 0.3).unflatten(1, SHAPE)


def marginal(x, weight, bias, variance) -> torch.Tensor:
    """log N(x; b, W W^T + v I), ``(B,)``."""
    covariance = weight @ weight.T + variance * torch.eye(SIZE)
    return td.MultivariateNormal(bias, covariance).log_prob(x.flatten(1))


def principal(x) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Maximum-likelihood W, b, v by an eigendecomposition of the covariance."""
    flat = x.flatten(1)
    bias = flat.mean(0)
    values, vectors = torch.linalg.eigh((flat - bias).T @ (flat - bias) / len(flat))
    variance = values[:-LATENT].mean().item()
    return vectors[:, -LATENT:] * (values[-LATENT:] - variance).sqrt(), bias, variance


@torch.no_grad()
def set_exact(model, weight, bias, variance):
    """W, b and the exact posterior N(M^-1 W^T (x - b), v M^-1); W has orthogonal columns, so that M is diagonal."""
    precision = weight.T @ weight + variance * torch.eye(LATENT)
    to_mean = torch.linalg.solve(precision, weight.T)
    encoder, decoder = model.encoder.layers[0], model.decoder.layers[0]
    decoder.weight.copy_(weight)
    decoder.bias.copy_(bias)
    encoder.weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
    encoder.bias.copy_(torch.cat([-to_mean @ bias, (variance / precision.diagonal()).log()]))


@pytest.fixture
def exact(new_model):
    """Linear VAE at the maximum of the likelihood, with the exact posterior."""
    x = images()
    weight, bias, variance = principal(x)
    model = new_model("VAE", SHAPE, LATENT, hidden=(), likelihood=FixedGaussian(variance))
    set_exact(model, weight, bias, variance)
    return model, x, marginal(x, weight, bias, variance)


def elbo(model, x, posterior, z):
    """With the expectation over q taken as the mean over the given z."""
    return ELBO()(x, [Level(posterior, model.prior(LABELS), z)], model.decode(z, LABELS)).terms["elbo"]


def test_elbo_at_the_optimum_is_the_closed_form_for_every_image(exact):
    """The expected squared error is taken by quadrature over z = mean +- std sqrt(d) e_j, exact for quadratics."""
    model, x, log_px = exact
    posterior = model.encode(x, LABELS)
    axes = math.sqrt(LATENT) * torch.cat([torch.eye(LATENT), -torch.eye(LATENT)])[:, None]
    z = posterior.mean + posterior.std * axes
    torch.testing.assert_close(elbo(model, x, posterior, z), log_px, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 10])
def test_importance_weighted_bound_of_the_exact_posterior_is_log_p_for_every_k_and_noise(exact, k):
    model, x, log_px = exact
    nll = model.importance_weighted_nll(x, LABELS, num_samples=k, chunk=4)
    torch.testing.assert_close(-nll, log_px, rtol=0, atol=1e-9)
    levels, decoded = model.path(model.encode(x, LABELS), LABELS, k)
    loss = IWAE(k)(x, levels, decoded).terms["loss"]
    torch.testing.assert_close(-loss, log_px, rtol=0, atol=1e-9)


@torch.no_grad()
def test_importance_weighted_bound_of_a_wrong_posterior_rises_to_log_p(exact):
    """Over draws for one image, within three standard errors; at k = 1 it is below by KL(q || p(z|x))."""
    model, x, log_px = exact
    x, log_px, labels = x[:1].expand(4000, *SHAPE), log_px[0], LABELS[:1].expand(4000)
    posterior = model.encode(x[:1], labels[:1])
    model.encoder.layers[0].bias[:LATENT] += 0.5 * posterior.std[0]
    model.encoder.layers[0].bias[LATENT:] += 0.8
    wrong = model.encode(x[:1], labels[:1])
    means, errors = [], []
    for k in (1, 4, 16, 64, 256):
        draws = Draws(k, 0, torch.arange(len(x)))
        bound = -model.importance_weighted_nll(x, labels, num_samples=k, chunk=64, draws=draws)
        means.append(bound.mean())
        errors.append(bound.std() / math.sqrt(len(x)))
    means, errors = torch.stack(means), torch.stack(errors)
    rises = means.diff()
    assert (rises > 3.0 * (errors[1:].square() + errors[:-1].square()).sqrt())[:3].all()
    assert (means < log_px + 3.0 * errors).all()
    assert (log_px - means[-1]) < 0.05 * (log_px - means[0])
    gap = td.kl_divergence(td.Normal(wrong.mean, wrong.std), td.Normal(posterior.mean, posterior.std)).sum()
    assert abs(log_px - gap - means[0]) < 3.0 * errors[0]


@pytest.mark.parametrize("chunk", [1, 3, 8, 16, 100])
@torch.no_grad()
def test_importance_weighted_nll_is_the_same_in_chunks_of_any_size(exact, monkeypatch, chunk):
    """With the noise given, whatever the chunks; and never more samples at once than asked for."""
    model, x, _ = exact
    model.encoder.layers[0].bias += 0.5
    draws, again = (Draws(0, 0, torch.arange(len(x))) for _ in range(2))
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y: asked.append(len(z)) or decode(z, y))
    in_chunks = model.importance_weighted_nll(x, LABELS, 16, chunk, draws)
    assert sum(asked) == 16
    assert max(asked) == min(chunk, 16)
    at_once = model.importance_weighted_nll(x, LABELS, 16, 16, again)
    torch.testing.assert_close(in_chunks, at_once, rtol=1e-13, atol=0)


@pytest.mark.parametrize("learned", [False, True])
def test_training_reaches_the_likelihood_of_probabilistic_pca(new_model, learned):
    """The full-batch expected ELBO by L-BFGS, with the variance given or learned.

    A linear VAE has no bad local maxima (Lucas et al., "Don't Blame the ELBO!", 2019), so that all that is left of the
    gap is the optimizer's, which stops at gradients of 1e-5. The gap is quadratic in the error of the weights: 1e-6
    nats in the one are about 1e-3 in the other.
    """
    x = images()
    weight, bias, variance = principal(x)
    best = marginal(x, weight, bias, variance).mean()
    flat = x.flatten(1)
    closed_form = solve(Moments(torch.tensor(400.0), flat.sum(0), flat.T @ flat), LATENT)  # what the model PCA computes
    torch.testing.assert_close(closed_form.elbo, best, rtol=0, atol=1e-9)
    likelihood = LearnedGaussian(1.0) if learned else FixedGaussian(variance)
    model = new_model("VAE", SHAPE, LATENT, hidden=(), likelihood=likelihood)
    axes = math.sqrt(LATENT) * torch.cat([torch.eye(LATENT), -torch.eye(LATENT)])[:, None]
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        history_size=100,
        tolerance_grad=1e-5,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        posterior = model.encode(x, LABELS)
        z = posterior.mean + posterior.std * axes
        loss = -elbo(model, x, posterior, z).mean()
        loss.backward()
        return loss

    before = -closure().item()
    optimizer.step(closure)
    after = -closure().item()
    assert before < best - 1.0
    assert after == pytest.approx(best.item(), abs=1e-6)
    with torch.no_grad():
        learned_weight, learned_bias = model.decoder.layers[0].weight, model.decoder.layers[0].bias
        v = model.likelihood.log_var.exp()
        torch.testing.assert_close(v, torch.tensor(variance), rtol=1e-3, atol=0)
        torch.testing.assert_close(
            learned_weight @ learned_weight.T + v * torch.eye(SIZE),
            weight @ weight.T + variance * torch.eye(SIZE),
            rtol=0, atol=2e-3,
        )  # fmt: skip
        torch.testing.assert_close(learned_bias, bias, rtol=0, atol=2e-3)


def test_training_step_and_evaluation_give_the_terms_of_the_objective(exact, monkeypatch):
    """Without a Trainer: the step's loss is the batch mean of the objective's per-image loss."""
    model, x, log_px = exact
    model.objective = ELBO(num_samples=64)
    logged = {}
    monkeypatch.setattr(model, "log_train", logged.update)
    torch.manual_seed(3)
    loss = model.training_step(Batch(x, LABELS), 0)
    torch.manual_seed(3)
    terms = model.evaluation_terms(Batch(x, LABELS), None)
    assert loss.ndim == 0
    torch.testing.assert_close(loss, terms["loss"].mean(), rtol=1e-14, atol=0)
    assert set(logged) == {"loss", "elbo", "rate", "distortion", "beta"}
    for name in model.term_names:
        torch.testing.assert_close(logged[name], terms[name], rtol=0, atol=0)
    draws = terms["elbo"] - log_px
    assert abs(draws.mean()) < 3.0 * draws.std() / math.sqrt(len(draws))
