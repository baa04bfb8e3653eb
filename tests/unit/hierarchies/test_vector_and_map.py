"""A map with an autoregressive prior: its rate by brute force, its draws, and linear models whose p(x) is known."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hierarchy_helpers import new_model, vector_and_map
from torch import distributions as td
from torch import nn
from torch.autograd.functional import jacobian

from lit_vae.networks import MLP
from lit_vae.networks.autoregressive import Autoregressive, Incremental
from lit_vae.objectives import ELBO
from lit_vae.objectives.bounds import log_weights

EXACT = {"rtol": 0, "atol": 1e-10}
IMAGE, VARIANCE = (1, 2, 3), 0.3
X = torch.linspace(-1.0, 1.0, 24, dtype=torch.float64).reshape(4, *IMAGE)
Y = torch.full((4,), -1)


def expectation(dims: int, points: int):
    """Nodes ``(points^dims, dims)`` and weights of an expectation over N(0, I), by Gauss and Hermite."""
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(points))
    return torch.cartesian_prod(*[nodes] * dims), torch.cartesian_prod(*[weights / weights.sum()] * dims).prod(1)


@pytest.fixture
def small():
    """A map of 2 x 2 numbers, whose prior strongly depends on what was drawn before."""
    model = new_model(IMAGE, [(2,), (1, 2, 2)], vector_and_map())
    last = model.hierarchy.network.head[-1]
    with torch.no_grad():
        last.weight *= 3.0
    return model


@torch.no_grad()
def test_the_rate_of_a_map_is_its_kl_by_brute_force(small):
    """``E_q sum_i KL(q_i || p_i(.|z_<i))``, which the model estimates at one draw, is ``E_q [log q - log p]``."""
    eps, weight = expectation(4, 10)
    vector = torch.randn(1, 2).expand(len(eps), 1, 2)

    def pick(level, q):
        return q.mean + q.std * eps.reshape(-1, 1, 1, 2, 2) if level else vector

    level = small.hierarchy.infer(small.encode(X[:1], Y[:1]), None, len(eps), pick)[0][1]
    closed_form = level.posterior.kl(level.prior)[:, 0]
    log_ratio = (level.posterior.log_prob(level.z) - level.prior.log_prob(level.z))[:, 0]
    assert closed_form.std() > 0.1  # it depends on the draw, and is right in expectation only
    torch.testing.assert_close((weight * closed_form).sum(), (weight * log_ratio).sum(), rtol=1e-6, atol=0)


@torch.no_grad()
def test_cached_draws_are_those_of_whole_passes():
    """So draws follow the density: each position is its mean and deviation, given those before, times the noise."""
    model = new_model(IMAGE, [(2,), (3, 4, 5)], vector_and_map())
    net, (vector, noise) = model.hierarchy, (torch.randn(6, 2), torch.randn(6, 3, 4, 5))
    z, spatial = torch.zeros_like(noise), net.top_decoder(vector, None)
    for row in range(4):
        for column in range(5):
            mean, raw = net.network(z, None, spatial)[:, :, row, column].chunk(2, 1)
            z[:, :, row, column] = mean + torch.exp(5.0 * torch.tanh(raw / 5.0)) * noise[:, :, row, column]
    torch.testing.assert_close(net.generate(None, [vector[None], noise[None]])[0], net.decoder(z, None), **EXACT)


def test_a_position_depends_on_the_positions_before_it_alone():
    net = new_model(IMAGE, [(2,), (2, 2, 3)], vector_and_map()).hierarchy
    spatial = torch.randn(1, 3, 2, 3)
    of_each = jacobian(lambda z: net.network(z, None, spatial), torch.randn(1, 2, 2, 3))
    reached = of_each.abs().sum((0, 1, 4, 5)).reshape(6, 6) > 0.0
    assert torch.equal(reached, torch.ones(6, 6).tril(-1).bool())


# ---- linear models --------------------------------------------------------------------------------------------------


class Linear(Autoregressive):
    """Means that are affine in the values before and in the condition; deviations that are learned numbers."""

    def __init__(self, in_channels, out_channels, grid, cond_dim, spatial_channels):
        super().__init__(in_channels, out_channels, grid, cond_dim, spatial_channels)
        places, channels = math.prod(grid), out_channels // 2
        before = torch.ones(places, places).tril(-1).repeat_interleave(channels, 0).repeat_interleave(in_channels, 1)
        self.weight = nn.Parameter(before * torch.randn_like(before))
        self.from_spatial = nn.Conv2d(spatial_channels, channels, 1)
        self.raw = nn.Parameter(0.5 * torch.randn(1, channels, *grid))

    def forward(self, h, cond=None, spatial=None):
        values = h.flatten(2).mT.flatten(1) @ self.weight.T  # places, then channels
        mean = values.unflatten(1, (-1, self.out_channels // 2)).mT.unflatten(2, self.grid) + self.from_spatial(spatial)
        return torch.cat([mean, self.raw.expand_as(mean)], 1)

    def incremental(self, batch: int, cond=None, spatial=None) -> Incremental:
        raise NotImplementedError


SIZES = [(2,), (2, 1, 3)]


@pytest.fixture
def linear():
    affine = partial(MLP, hidden=[])
    wiring = vector_and_map(encoder=affine, decoder=affine, top_decoder=affine, network=Linear)
    return new_model(IMAGE, SIZES, wiring)


def affine_map(function, size):
    """Matrix and offset of an affine function of a vector."""
    zero = torch.zeros(size)
    return jacobian(function, zero), function(zero)


def joint(model):
    """``p(z_0, z_1, x)``, a Gaussian, from p(z_1 | z_0) and p(x | z_1)."""
    net = model.hierarchy

    def prior_mean(both):
        vector, z = both[:2], both[2:].reshape(1, 2, 1, 3)
        return net.network(z, None, net.top_decoder(vector[None], None)).chunk(2, 1)[0].flatten()

    weight, offset = affine_map(prior_mean, 8)
    std = torch.exp(5.0 * torch.tanh(net.network.raw / 5.0)).flatten()
    inverse = torch.linalg.inv(torch.eye(6) - weight[:, 2:])  # z_1 = W_0 z_0 + W_1 z_1 + b + std eps
    down, bias = affine_map(lambda z: net.decoder(z.reshape(1, 2, 1, 3), None).flatten(), 6)
    from_noise = torch.zeros(14, 14)
    from_noise[:2, :2] = torch.eye(2)
    from_noise[2:8, :8] = torch.cat([inverse @ weight[:, :2], inverse * std], 1)
    from_noise[8:, :8] = down @ from_noise[2:8, :8]
    from_noise[8:, 8:] = math.sqrt(VARIANCE) * torch.eye(6)
    mean = torch.cat([torch.zeros(2), inverse @ offset, down @ inverse @ offset + bias])
    return td.MultivariateNormal(mean, from_noise @ from_noise.T)


@torch.no_grad()
def test_the_importance_weight_is_that_of_the_whole_path(linear):
    levels, decoded = linear.path(linear.encode(X, Y), Y, 5)
    log_w = log_weights(decoded.log_prob(X), levels)
    everything = torch.cat([*(level.z.flatten(2) for level in levels), X.flatten(1).expand(5, -1, -1)], 2)
    log_q = sum(td.Normal(q.mean, q.std).log_prob(z).flatten(2).sum(2) for q, _, z, _ in levels)
    torch.testing.assert_close(log_w, joint(linear).log_prob(everything) - log_q, **EXACT)


@torch.no_grad()
def test_the_elbo_is_below_the_likelihood_by_the_kl_to_the_exact_posterior(linear):
    """All terms are quadratic in the noise, so the points ``+-sqrt(d) e_j`` give the exact expectation."""
    p = joint(linear)
    eps = (math.sqrt(8) * torch.cat([torch.eye(8), -torch.eye(8)])).split([2, 6], 1)
    levels, parameters = linear.hierarchy.infer(
        linear.encode(X, Y), None, 16, lambda i, q: q.mean + q.std * eps[i].reshape(16, 1, *SIZES[i])
    )
    elbo = ELBO()(X, levels, linear.likelihood(parameters)).terms["elbo"]
    p_x = td.MultivariateNormal(p.mean[8:], p.covariance_matrix[8:, 8:])
    gain = torch.linalg.solve(p_x.covariance_matrix, p.covariance_matrix[8:, :8]).T
    posterior = td.MultivariateNormal(
        p.mean[:8] + (X.flatten(1) - p.mean[8:]) @ gain.T,
        p.covariance_matrix[:8, :8] - gain @ p.covariance_matrix[8:, :8],
    )
    mean, std = (
        torch.cat([getattr(level.posterior, part)[0].flatten(1) for level in levels], 1) for part in ("mean", "std")
    )
    gap = td.kl_divergence(td.MultivariateNormal(mean, torch.diag_embed(std**2)), posterior)
    assert (gap > 1.0).all()
    torch.testing.assert_close(elbo + gap, p_x.log_prob(X.flatten(1)), **EXACT)
