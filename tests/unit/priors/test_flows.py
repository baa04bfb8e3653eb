"""Flows as priors and posteriors: change of variables, inverse, start, and what a linear model has in closed form."""

import math
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import distributions as td
from torch import nn

from lit_vae.flows import AffineFlow, SplineFlow
from lit_vae.images import Batch, ImageSpec
from lit_vae.likelihoods import FixedGaussian
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, DReG, FreeBitsPerLevel, Level
from lit_vae.posteriors import FlowPosterior, GaussianPosterior
from lit_vae.priors import FlowPrior, StandardNormal, VampPrior

D, CONTEXT = 4, 3
Y = torch.full((10,), -1)
SPEC = ImageSpec(1, 2, 3, 0, "dequantized")
EXACT = {"rtol": 1e-12, "atol": 1e-12}
every_flow = pytest.mark.parametrize("flow", [AffineFlow, SplineFlow])
every_order = pytest.mark.parametrize("coupling", [False, True], ids=["autoregressive", "coupling"])


def trained(flow: nn.Module) -> nn.Module:
    """The flow with weights that are not those of the identity."""
    generator = torch.Generator().manual_seed(0)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return flow


@every_flow
@every_order
@pytest.mark.parametrize("values", [1, D])
@pytest.mark.parametrize("context", [0, CONTEXT])
def test_the_log_determinant_is_that_of_the_jacobian_and_the_inverse_goes_back(flow, coupling, values, context):
    module = trained(flow((values,), context, transforms=3, hidden=[16], coupling=coupling))
    for training in (True, False):
        transform = module.train(training)(torch.randn(context) if context else None)
        for scale in (1.0, 30.0) if flow is SplineFlow else (1.0,):  # 30 is mostly outside of the splines
            z0 = scale * torch.randn(values)
            z, log_det = transform.call_and_ladj(z0)
            assert (z - z0).abs().max() > 0.01 or scale > 1.0
            jacobian = torch.autograd.functional.jacobian(transform, z0)
            torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-11, atol=1e-11)
            back, back_det = transform.inv.call_and_ladj(z)
            torch.testing.assert_close(back, z0, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(back_det, -log_det, rtol=1e-9, atol=1e-9)


@every_flow
@every_order
def test_a_network_depends_on_all_values_before_and_on_no_other(flow, coupling):
    """Also where a hidden layer is as narrow as it may be."""
    module = trained(flow((D,), 0, transforms=2, hidden=[D, 16], coupling=coupling))
    for order, each in zip((torch.arange(D), torch.arange(D).flip(0)), module.map.transforms, strict=True):
        group = order // 2 if coupling else order
        of_network = torch.autograd.functional.jacobian(each.hyper, torch.randn(D))  # (D x parameters, D)
        touched = (of_network.unflatten(0, (D, -1)) != 0.0).any(1)
        assert (touched == (group[:, None] > group)).all()
        of_map = torch.autograd.functional.jacobian(each(), torch.randn(D)) != 0.0
        assert (of_map == touched | torch.eye(D, dtype=torch.bool)).all()


@every_flow
@every_order
@pytest.mark.parametrize("shape", [[1], [4], [2, 2, 1]])
def test_a_flow_starts_as_the_identity(flow, coupling, shape):
    flow = partial(flow, coupling=coupling)
    y, z = torch.tensor([0, 2, 1]), 3.0 * torch.randn(5, 3, *shape)
    standard = StandardNormal(shape)(y)
    for num_classes in (0, 3):
        p = FlowPrior(shape, flow, num_classes)(y)
        torch.testing.assert_close(p.log_prob(z), standard.log_prob(z), **EXACT)
        draws, expected = (each.sample(torch.Generator().manual_seed(1), 0.7) for each in (p, standard))
        torch.testing.assert_close(draws, expected, **EXACT)
    posterior = FlowPosterior(tuple(shape), flow, context=2)
    parameters = torch.randn(3, *posterior.in_shape)
    q, gaussian = posterior(parameters), GaussianPosterior(tuple(shape))(parameters[:, : 2 * shape[0]])
    torch.testing.assert_close(q.log_prob(z), gaussian.log_prob(z), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(q.mean, gaussian.mean, **EXACT)


@every_flow
@every_order
def test_the_density_of_own_draws_is_the_density_with_all_its_gradients(flow, coupling):
    """That of `rsample` is taken from the noise; the same numbers in another tensor go back through the flow."""
    posterior = FlowPosterior((D,), partial(flow, coupling=coupling, hidden=[16]), CONTEXT)
    trained(posterior.flow)
    parameters = torch.randn(3, *posterior.in_shape, requires_grad=True)
    q = posterior(parameters)
    z = q.rsample(2, Draws(0, 0, torch.arange(3)))
    inputs = [parameters, *posterior.parameters()]
    of_draws, of_values = q.log_prob(z), q.log_prob(z.clone())
    torch.testing.assert_close(of_draws, of_values, rtol=1e-9, atol=1e-9)
    gradients = (torch.autograd.grad(value.sum(), inputs, retain_graph=True) for value in (of_draws, of_values))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@every_flow
def test_labels_have_densities_of_their_own_which_integrate_to_one(flow):
    prior = FlowPrior([1], partial(flow, hidden=[8]), num_classes=2)
    trained(prior.flow)
    grid = torch.linspace(-60.0, 60.0, 12_001)[:, None, None].expand(-1, 2, 1)
    density = prior(torch.tensor([0, 1])).log_prob(grid).exp()
    assert (density[:, 0] - density[:, 1]).abs().max() > 0.01
    for of_label in density.T:
        assert torch.trapezoid(of_label, grid[:, 0, 0]).item() == pytest.approx(1.0, abs=1e-3)


def test_the_mean_is_that_of_many_draws():
    prior = FlowPrior([2], partial(SplineFlow, hidden=[8]))
    trained(prior.flow)
    draws = prior(Y[:1].expand(4_000)).sample(torch.Generator().manual_seed(0))
    spread = draws.std(0) * math.sqrt(1.0 / 32 + 1.0 / 4_000)
    assert ((prior(Y).mean - draws.mean(0)).abs() < 4.0 * spread).all()


def test_one_affine_flow_reaches_the_aggregate_posterior_of_a_linear_gaussian_model():
    """For x ~ N(0, I), q(z|x) = N(A x + b, S) and q(z) = N(b, A A' + S). The rate is then I(x; z).

    The cross-entropy is by Gauss-Hermite quadrature, so what is left is the error of L-BFGS.
    """
    nodes, weights = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(24))
    grid, weight = torch.cartesian_prod(nodes, nodes), torch.cartesian_prod(weights, weights).prod(1) / (2.0 * math.pi)
    a, b, s = torch.tensor([[1.2, -0.4], [0.9, 0.7]]), torch.tensor([0.5, -1.5]), torch.tensor([0.3, 0.1])
    covariance = a @ a.T + s.diag()
    z = (b + grid @ torch.linalg.cholesky(covariance).T)[:, None]
    prior = FlowPrior([2], partial(AffineFlow, transforms=1, hidden=[]))
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def cross_entropy():
        optimizer.zero_grad()
        loss = -(weight * prior(Y[:1]).log_prob(z)[:, 0]).sum()
        loss.backward()
        return loss

    entropy = td.MultivariateNormal(b, covariance).entropy().item()
    assert cross_entropy().item() > entropy + 1.0
    optimizer.step(cross_entropy)
    assert cross_entropy().item() == pytest.approx(entropy, abs=1e-9)
    rate = cross_entropy().item() - td.Independent(td.Normal(b, s.sqrt()), 1).entropy().item()
    assert rate == pytest.approx(0.5 * (torch.logdet(covariance) - s.log().sum()).item(), abs=1e-9)
    draws = prior(Y[:1].expand(20_000)).sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.05, atol=0.02)
    cold = prior(Y[:1].expand(2)).sample(temperature=0.0)
    torch.testing.assert_close(cold, b.expand(2, 2), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_flow_holds_a_correlated_posterior_so_that_every_weight_is_the_likelihood(vae_with, images):
    """p(x|z) = N(W z + c, v I) with W' W not diagonal: one affine map with the Cholesky factor of the covariance."""
    v = 0.5
    flow = partial(AffineFlow, transforms=1, hidden=[])
    model = vae_with(StandardNormal([2]), partial(FlowPosterior, flow=flow, context=0), (), likelihood=FixedGaussian(v))
    weight, bias = model.decoder.layers[0].weight, model.decoder.layers[0].bias
    covariance = v * torch.linalg.inv(weight.T @ weight + v * torch.eye(2))
    factor = torch.linalg.cholesky(covariance)
    slope = factor[1, 0] / factor[0, 0]
    to_mean = covariance @ weight.T / v
    to_base = torch.stack([to_mean[0], to_mean[1] - slope * to_mean[0]])  # z_2 = e_2 + slope e_1
    encoder = model.encoder.layers[0]
    encoder.weight.copy_(torch.cat([to_base, torch.zeros_like(to_base)]))
    encoder.bias.copy_(torch.cat([-to_base @ bias, 2.0 * factor.diagonal().log()]))
    (network,) = model.posterior.flow.map.transforms[0].hyper
    network.weight[2, 0] = slope  # the shift of z_2; the outputs are shift and scale of z_1, then of z_2
    log_px = td.MultivariateNormal(bias, weight @ weight.T + v * torch.eye(6)).log_prob(images.flatten(1))
    for k in (1, 3):
        nll = model.importance_weighted_nll(images, Y, k, 2, Draws(0, k, torch.arange(10)))
        torch.testing.assert_close(-nll, log_px, rtol=0, atol=1e-11)
    assert abs(slope) > 0.01


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3), ELBO(free_bits=FreeBitsPerLevel(1.0))])
def test_bounds_train_flow_prior_and_flow_posterior_together(vae_with, images, objective):
    flow = partial(AffineFlow, hidden=[8])
    model = vae_with(FlowPrior([2], flow), partial(FlowPosterior, flow=flow, context=2), objective=objective)
    trained(model.prior.flow)
    trained(model.posterior.flow)
    assert model.problems(SPEC) == []
    terms = model.step(Batch(images, Y), 0, Draws(0, 0, torch.arange(10))).terms
    q = model.encode(images, Y)
    z = q.rsample(objective.num_samples, Draws(0, 0, torch.arange(10)))
    rates = q.log_prob(z.clone()) - model.prior(Y).log_prob(z)
    torch.testing.assert_close(terms["rate"], rates.mean(0), rtol=1e-9, atol=1e-9)
    terms["loss"].mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_half_precision_of_the_networks_does_not_reach_the_density(vae_with, images):
    flow = partial(SplineFlow, hidden=[8])
    model = vae_with(FlowPrior([2], flow), partial(FlowPosterior, flow=flow, context=2)).float()
    trained(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = model.encode(images.float(), Y)
        z = q.rsample(2)
        inside = q.log_prob(z), model.prior(Y).log_prob(z)
    assert z.dtype == inside[0].dtype == torch.float32
    torch.testing.assert_close(inside[0], q.log_prob(z.clone()), rtol=1e-3, atol=1e-3)
    assert torch.equal(inside[1], model.prior(Y).log_prob(z))


def test_a_latent_that_is_too_large_for_a_flow_is_refused_with_the_numbers():
    said = (
        "AffineFlow: the latent [4, 32, 32] has 4096 values, and a flow connects each with every other: at most 1024."
        " Set a smaller model.init_args.prior.init_args.shape, or take no flow."
    )
    for build in (FlowPrior, partial(FlowPosterior, context=1)):
        with pytest.raises(ValueError) as error:
            build((4, 32, 32), flow=AffineFlow)
        assert str(error.value) == said


def test_a_layer_that_would_lose_dependences_is_refused():
    with pytest.raises(ValueError) as error:
        FlowPrior([4, 7, 7], partial(SplineFlow, hidden=[256, 128]))
    assert str(error.value) == (
        "SplineFlow: hidden (=[256, 128]) must be at least 196 wide, as many as the latent [4, 7, 7] has values: a"
        " narrower layer loses some of their dependences. Set wider layers in flow.init_args.hidden, or"
        " flow.init_args.coupling: true."
    )
    assert FlowPrior([4, 7, 7], partial(SplineFlow, coupling=True)).shape == (4, 7, 7)


def test_what_needs_a_gaussian_posterior_is_refused(vae_with):
    posterior = partial(FlowPosterior, flow=AffineFlow)
    said = "VampPrior: it needs a Gaussian posterior. Remove model.init_args.posterior, or take another prior."
    assert said in vae_with(VampPrior([2], 3), posterior).problems(SPEC)
    said = "DReG: it needs a Gaussian posterior. Take IWAE, or remove model.init_args.posterior."
    assert said in vae_with(StandardNormal([2]), posterior, objective=DReG(2)).problems(SPEC)
    prior = FlowPrior([2], AffineFlow)
    assert vae_with(prior, objective=DReG(2)).problems(SPEC) == []
    assert vae_with(prior, objective=ELBO(free_bits=0.1)).problems(SPEC) != []


def test_the_rate_at_the_draws_is_the_closed_form_in_expectation_where_flows_are_the_identity(vae_with, images):
    flow = partial(AffineFlow, hidden=[8])
    model = vae_with(FlowPrior([2], flow), partial(FlowPosterior, flow=flow))
    q, p = model.encode(images, Y), model.prior(Y)
    z = q.rsample(1000, Draws(0, 0, torch.arange(10)))
    ratios = q.log_prob(z) - p.log_prob(z)
    assert ratios.min() < 0.0
    error = ratios.std(0) / math.sqrt(1000)
    assert ((Level(q, p, z).rate() - q.base.kl()).abs() < 4.0 * error).all()


def test_the_first_flow_leaves_the_validation_of_other_distributions_on(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(td.Distribution, "_validate_args", True)
    FlowPrior([2], SplineFlow)
    assert "zuko" in sys.modules
    with pytest.raises(ValueError, match="parameter scale"):
        td.Normal(0.0, -1.0)
