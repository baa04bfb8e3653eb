"""The family of two levels that docs/add-a-family.md builds: exact where it is linear, and it has what a VAE has."""

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributions as td

from lit_vae.images import Batch
from lit_vae.likelihoods import FixedGaussian
from lit_vae.networks import MLP
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, DReG, FreeBits, FreeBitsPerLevel

DOCS = Path(__file__).resolve().parents[3] / "docs"
SHAPE, TOP, BOTTOM, VARIANCE = (1, 2, 3), 1, 2, 0.3
Y = torch.full((40,), -1)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def family(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "ladder_vae"))
    from ladder_vae import LadderVAE

    yield LadderVAE
    sys.modules.pop("ladder_vae")


def linear(family, objective=None):
    affine = partial(MLP, hidden=[])
    networks = dict.fromkeys(("encoder", "top_encoder", "top_decoder", "decoder"), affine)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return family(
        list(SHAPE), [TOP, BOTTOM], **networks, likelihood=FixedGaussian(VARIANCE), objective=objective or ELBO(),
        optimizer=optimizer,
    )  # fmt: skip


@torch.no_grad()
def exact(family):
    """``p(z1) = N(0, 1)``, ``p(z2|z1) = N(a z1 + b, diag s)``, ``p(x|z2) = N(W z2 + c, v)``, W with orthogonal columns.

    Then what an image says of z2 is Gaussian with diagonal covariance, ``q(z2|z1,x)`` is its product with p(z2|z1), and
    ``q(z1|x)`` is Gaussian: with the weights below the posterior is exact, and every weight of it is p(x).
    """
    model = linear(family)
    w = torch.linalg.qr(torch.randn(6, BOTTOM)).Q * torch.tensor([1.5, 0.7])
    c, a, b, s = torch.randn(6), torch.tensor([0.8, -0.4]), torch.tensor([0.3, 0.1]), torch.tensor([0.5, 0.2])

    def set_to(network, weight, bias):
        network.layers[0].weight.copy_(weight)
        network.layers[0].bias.copy_(bias)

    set_to(model.decoder, w, c)
    set_to(model.top_decoder, torch.cat([a[:, None], torch.zeros(BOTTOM, 1)]), torch.cat([b, s.log()]))
    gram = (w * w).sum(0)  # W^T W
    evidence = (w / gram).T  # z2 by least squares, with variance v / gram
    set_to(
        model.encoder,
        torch.cat([evidence, torch.zeros(BOTTOM, 6)]),
        torch.cat([-evidence @ c, (VARIANCE / gram).log()]),
    )
    t = s + VARIANCE / gram  # of that estimate given z1
    precision = 1.0 + (a.square() / t).sum()
    to_mean = torch.cat([a / t / precision, torch.zeros(BOTTOM)])
    set_to(
        model.top_encoder,
        torch.stack([to_mean, torch.zeros(2 * BOTTOM)]),
        torch.stack([-(a * b / t).sum() / precision, -precision.log()]),
    )
    covariance = w @ (a[:, None] * a + torch.diag(s)) @ w.T + VARIANCE * torch.eye(6)
    x = torch.randn(40, *SHAPE)
    return model, x, td.MultivariateNormal(w @ b + c, covariance).log_prob(x.flatten(1))


@pytest.mark.parametrize("k", [1, 2, 10])
def test_with_the_exact_posterior_every_importance_weight_is_p_of_x(family, k):
    model, x, log_px = exact(family)
    torch.testing.assert_close(-model.importance_weighted_nll(x, Y, k, 4), log_px, rtol=0, atol=1e-9)
    model.objective = IWAE(k)
    torch.testing.assert_close(-model.step(Batch(x, Y), None, None).terms["loss"], log_px, rtol=0, atol=1e-9)


def test_the_elbo_of_the_exact_posterior_is_log_p_in_expectation(family):
    model, x, log_px = exact(family)
    model.objective = ELBO(num_samples=20_000)
    terms = model.step(Batch(x, Y), None, Draws(0, 0, torch.arange(40))).terms
    assert (terms["elbo"] - log_px).abs().max() < 0.05
    torch.testing.assert_close(terms["rate_0"] + terms["rate_1"], terms["rate"])


def test_a_wrong_posterior_is_below_log_p_and_rises_with_k(family):
    model, x, log_px = exact(family)
    with torch.no_grad():
        model.top_encoder.layers[0].bias += 0.7
    bounds = [-model.importance_weighted_nll(x, Y, k, 64, Draws(k, 0, torch.arange(40))).mean() for k in (1, 16, 256)]
    assert bounds[0] < bounds[1] < bounds[2] < log_px.mean() + 0.02


def test_the_levels_have_independent_noise(family):
    model, _, _ = exact(family)
    model.path(model.encode(torch.zeros(2, *SHAPE), Y[:2]), Y[:2], 1)  # without draws: torch's generator
    x, y = torch.zeros(5000, *SHAPE), Y[:1].expand(5000)
    levels, _ = model.path(model.encode(x, y), y, 4, Draws(0, 0, torch.arange(5000)))
    eps = [((level.z - level.posterior.mean) / level.posterior.std).flatten(0, 1) for level in levels]
    correlation = torch.corrcoef(torch.cat(eps, 1).T)
    off = correlation - torch.eye(3)
    assert off.abs().max() < 4.0 / math.sqrt(20_000)


def test_free_bits_count_each_dimension_or_each_level(family):
    """Below them the loss does not change; above them it is the rate. Evaluation takes the mean of the split."""
    for free_bits, groups in (
        (FreeBits(0.4), lambda kl: kl.flatten()),
        (FreeBitsPerLevel(0.4), lambda kl: kl.sum(0, True)),
    ):
        model, x, _ = exact(family)
        model.objective = ELBO(free_bits=free_bits)
        levels, decoded = model.path(model.encode(x, Y), Y, 1, Draws(0, 0, torch.arange(40)))
        kls = [level.kl_per_dim().mean(0) for level in levels]
        expected = sum(groups(kl).clamp_min(0.4).sum() for kl in kls) - decoded.log_prob(x).mean()
        result = model.objective(x, levels, decoded, 0)
        torch.testing.assert_close(result.terms["loss"].mean(), expected)
        result = model.objective(x, levels, decoded, None)
        means = {name: value.mean(0) for name, value in result.of_batch.items()}
        assert list(means) == ["kl_per_dim_0", "kl_per_dim_1"]
        torch.testing.assert_close(result.terms["loss"].mean() + model.objective.batch_loss(means), expected)


def test_dreg_is_refused_for_two_levels(family):
    (problem,) = linear(family, DReG()).objective.problems(2)
    assert problem == "DReG: it needs a model with one level of latents, but this one has 2. Take IWAE."


def test_it_is_no_model_of_one_posterior_and_draws_images(family):
    from lit_vae.models.abilities import HasBound, HasPosterior

    model = linear(family)
    assert isinstance(model, HasBound)
    assert not isinstance(model, HasPosterior)
    assert model.check_networks() == []
    assert model.sample(3).shape == (3, *SHAPE)
    n = 100_000
    z2 = exact(family)[0].sample_latents(n, generator=torch.Generator().manual_seed(0))
    a, s = torch.tensor([0.8, -0.4]), torch.tensor([0.5, 0.2])
    torch.testing.assert_close(torch.cov(z2.T), a[:, None] * a + torch.diag(s), rtol=0, atol=5.0 / math.sqrt(n))
