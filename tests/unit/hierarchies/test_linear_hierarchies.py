"""Linear hierarchies of Gaussians: the likelihood is known, and with the exact posterior every weight is p(x)."""

import math

import pytest
import torch
from hierarchy_helpers import chain, new_model, top_down
from torch import distributions as td
from torch import nn

from lit_vae.hierarchies import LadderMerge
from lit_vae.hierarchies.posteriors import MOST
from lit_vae.images import Batch
from lit_vae.networks.layers import Block
from lit_vae.objectives import ELBO, IWAE

PIXELS, VARIANCE, IMAGES = 6, 0.3, 40
Y = torch.full((IMAGES,), -1)


class Affine(Block):
    """A block without a residual: an affine map of the channels, and of equal channels the identity."""

    def __init__(self, in_channels, out_channels, cond_dim):
        super().__init__()
        self.cond_dim = cond_dim
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.nothing = nn.Conv2d(in_channels, out_channels, 1)
        nn.init.zeros_(self.nothing.weight)
        nn.init.zeros_(self.nothing.bias)

    @property
    def last(self):
        return self.nothing

    def before_last(self, h, cond):
        return h


def raw(variance):
    """The network's output for a variance."""
    return MOST * torch.atanh(0.5 * variance.log() / MOST)


def put(conv, rows, columns, weight, bias=0.0):
    """Set a part of the middle of a kernel."""
    middle = conv.weight[:, :, conv.weight.shape[2] // 2, conv.weight.shape[3] // 2]
    middle[rows, columns] = weight
    conv.bias[rows] = bias


def lower(w):
    """What an image says of z_1 by least squares: ``(gram, evidence)`` for columns w that are orthogonal."""
    gram = (w * w).sum(0)
    return gram, (w / gram).T


@torch.no_grad()
def ladder(a):
    """``p(z0) = N(0, I)``, ``p(z1|z0) = N(a z0 + b, diag s)``, ``p(x|z1) = N(W z1 + c, v)``; W has orthogonal columns.

    Channels of the path: z0, z1, and what the image adds. ``q(z1|z0,x)`` is exact. ``q(z0|x)`` has the exact mean, and
    the diagonal of the exact precision: in one dimension it is exact.

    Returns:
        The model, images, ``log p(x)``, and the covariance of ``p(z0|x)``.
    """
    top = a.shape[1]
    width = top + 2 + PIXELS
    z0, z1, seen = slice(0, top), slice(top, top + 2), slice(top + 2, width)
    shapes = [(top, 1, 1), (2, 1, 1)]
    model = new_model((PIXELS, 1, 1), shapes, top_down(LadderMerge(), Affine, [width], encoder_blocks=1))
    w = torch.linalg.qr(torch.randn(PIXELS, 2)).Q * torch.tensor([1.5, 0.7])
    b, c, s = torch.tensor([0.3, 0.1]), torch.randn(PIXELS), torch.tensor([0.5, 0.2])
    gram, evidence = lower(w)
    for parameter in model.parameters():
        parameter.zero_()
    net = model.hierarchy
    put(net.bottom_up.enter[0], seen, slice(None), torch.eye(PIXELS))
    for step, own in zip(net.steps, (z0, z1), strict=True):
        put(step.evidence, slice(None), slice(None), torch.eye(width))
        put(step.merge, own, slice(None), torch.eye(step.channels))
    put(net.head, slice(None), z1, w, c)
    upper, below = net.steps
    put(below.prior.shortcut, slice(0, 2), z0, a, b)
    below.prior.shortcut.bias[2:4] = raw(s)
    put(below.posterior.shortcut, slice(0, 2), seen, evidence, -evidence @ c)
    below.posterior.shortcut.bias[2:4] = raw(VARIANCE / gram)
    t = s + VARIANCE / gram  # variance of the least-squares z1 given z0
    likelihood = (a.T / t) @ a  # precision of the message about z0
    covariance = torch.linalg.inv(torch.eye(top) + likelihood)
    own_precision = 1.0 + likelihood.diagonal()
    to_mean = covariance @ (a.T / t)  # the exact mean, which the merge with N(0, I) then shrinks
    message = own_precision / (own_precision - 1.0)
    upper.posterior.shortcut.bias[top : 2 * top] = raw(1.0 / (own_precision - 1.0))
    put(
        upper.posterior.shortcut, slice(0, top), seen,
        message[:, None] * (to_mean @ evidence), -message * (to_mean @ (evidence @ c + b)),
    )  # fmt: skip
    x = torch.randn(IMAGES, PIXELS, 1, 1)
    marginal = td.MultivariateNormal(w @ b + c, w @ (a @ a.T + torch.diag(s)) @ w.T + VARIANCE * torch.eye(PIXELS))
    return model, x, marginal.log_prob(x.flatten(1)), covariance


@torch.no_grad()
def markovian():
    """``p(z2) = N(0, I)``, ``p(z1|z2) = N(a z2 + b, diag s)`` with a diagonal, ``p(x|z1)`` as above.

    Then ``p(z1)`` is diagonal, and so are both factors of the posterior ``p(z1|x) p(z2|z1)``.
    """
    model = new_model((PIXELS, 1, 1), [(2,), (2,)], chain())
    w = torch.linalg.qr(torch.randn(PIXELS, 2)).Q * torch.tensor([1.5, 0.7])
    a, b, c, s = torch.tensor([0.8, -0.4]), torch.tensor([0.3, 0.1]), torch.randn(PIXELS), torch.tensor([0.5, 0.2])
    gram, evidence = lower(w)

    def set_to(network, weight, mean, variance=None):
        bias = mean if variance is None else torch.cat([mean, raw(variance)])
        network.layers[0].weight.copy_(torch.cat([weight, torch.zeros(len(bias) - len(weight), weight.shape[1])]))
        network.layers[0].bias.copy_(bias)

    upper, lowest = model.hierarchy.decoders
    set_to(upper, torch.diag(a), b, s)
    set_to(lowest, w, c)
    above, first = model.hierarchy.encoders
    prior = a * a + s  # of z1
    gain = prior / (prior + VARIANCE / gram)
    set_to(first, gain[:, None] * evidence, b - gain * (evidence @ c + b), (1.0 - gain) * prior)
    set_to(above, torch.diag(a / prior), -a * b / prior, s / prior)
    x = torch.randn(IMAGES, PIXELS, 1, 1)
    marginal = td.MultivariateNormal(w @ b + c, w @ torch.diag(prior) @ w.T + VARIANCE * torch.eye(PIXELS))
    return model, x, marginal.log_prob(x.flatten(1))


A_VECTOR = ((0.8,), (-0.4,))
MODELS = {"top-down": lambda: ladder(torch.tensor(A_VECTOR))[:3], "Markovian": markovian}


def expected_elbo(model, x):
    """The exact expectation over q: all terms are quadratic in the noise, here at the points +-sqrt(d) e_j."""
    sizes = model.level_sizes
    d = sum(sizes)
    eps = (math.sqrt(d) * torch.cat([torch.eye(d), -torch.eye(d)])).split(sizes, 1)

    def pick(level, q):
        return q.mean + q.std * eps[level].unflatten(1, model.hierarchy.latent_shapes[level])[:, None]

    levels, parameters = model.hierarchy.infer(model.encode(x, Y), None, 2 * d, pick)
    return ELBO()(x, levels, model.likelihood(parameters)).terms


@pytest.mark.parametrize("k", [1, 2, 10])
@pytest.mark.parametrize("wiring", MODELS)
def test_with_the_exact_posterior_every_importance_weight_is_p_of_x(wiring, k):
    model, x, log_px = MODELS[wiring]()
    torch.testing.assert_close(-model.importance_weighted_nll(x, Y, k, 4), log_px, rtol=0, atol=1e-9)
    model.objective = IWAE(k)
    torch.testing.assert_close(-model.step(Batch(x, Y), None, None).terms["loss"], log_px, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wiring", MODELS)
def test_the_elbo_of_the_exact_posterior_is_log_p(wiring):
    """The rate of each level by itself is right in expectation, analytic or a log-ratio."""
    model, x, log_px = MODELS[wiring]()
    terms = expected_elbo(model, x)
    torch.testing.assert_close(terms["elbo"], log_px, rtol=0, atol=1e-9)
    torch.testing.assert_close(terms["rate_0"] + terms["rate_1"], terms["rate"])
    assert (terms["rate"] > 0.0).all()


def test_with_a_diagonal_posterior_the_gap_is_the_kl_of_two_gaussians():
    model, x, log_px, covariance = ladder(torch.tensor([[1.5, 1.2], [-0.4, 0.9]]))
    levels, _ = model.path(model.encode(x, Y), Y, 1)
    q = levels[0].posterior
    exact = td.MultivariateNormal(q.mean[0].flatten(1), covariance)  # the means are the same
    own = td.MultivariateNormal(q.mean[0].flatten(1), torch.diag_embed(q.std[0].flatten(1) ** 2))
    gap = td.kl_divergence(own, exact)
    assert (gap > 0.01).all()
    torch.testing.assert_close(log_px - expected_elbo(model, x)["elbo"], gap, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wiring", MODELS)
def test_a_wrong_posterior_is_below_log_p(wiring):
    model, x, log_px = MODELS[wiring]()
    with torch.no_grad():
        for parameter in model.hierarchy.parameters():
            if parameter.shape == (4,):  # the means and deviations of a posterior, or of p(z1|z0)
                parameter.add_(0.2)
    assert expected_elbo(model, x)["elbo"].mean() < log_px.mean() - 0.01


@torch.no_grad()
def test_samples_have_the_covariance_of_the_model():
    a, s, n = torch.tensor(A_VECTOR), torch.tensor([0.5, 0.2]), 50_000
    model, _, _, _ = ladder(a)
    u = model.sample_latents(n, generator=torch.Generator().manual_seed(0))
    x_hat = model.decode(u, Y[:1].expand(n)).mean.flatten(1)
    w = model.hierarchy.head.weight[:, 1:3, 1, 1]
    torch.testing.assert_close(torch.cov(x_hat.T), w @ (a @ a.T + torch.diag(s)) @ w.T, rtol=0, atol=8 / math.sqrt(n))
