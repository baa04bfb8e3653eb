"""log p(x) by the probability-flow ODE, where it is known."""

import math
from itertools import product

import pytest
import torch
from diffusion_helpers import Counted, best, linear, no_noise, order, variance_of_states
from torch import distributions as td

from lit_vae.diffusion.grids import UniformLogSNR
from lit_vae.diffusion.likelihood import ProbabilityFlow
from lit_vae.diffusion.log_snr import alpha, sigma
from lit_vae.noise import Draws

pytestmark = pytest.mark.usefixtures("float64")

SHAPE = (2, 1, 2)
ENDS = linear(torch.tensor(10.0), -40.0)
EXACT = ProbabilityFlow(probes=None)


def grid(steps):
    return UniformLogSNR()(ENDS, steps)


@pytest.fixture
def gaussian():
    """A network for correlated values of an image ``(2, 1, 2)``, and the distribution of ``z`` at a log-SNR."""
    root, mean = torch.randn(4, 4), torch.randn(4)
    covariance = root @ root.T / 2 + 0.05 * torch.eye(4)

    def state(lam):
        a = alpha(lam)
        return td.MultivariateNormal(a * mean, a**2 * covariance + sigma(lam) ** 2 * torch.eye(4))

    def denoise(z, lam):
        centred = torch.linalg.solve(state(lam).covariance_matrix, (z.flatten(1) - alpha(lam) * mean).T).T
        return (mean + alpha(lam) * centred @ covariance).view_as(z)

    return denoise, state


def network(z, lam):
    return torch.tanh(2.0 * z + torch.linspace(-1, 1, 4).view(SHAPE)) * torch.sigmoid(lam / 4)


def test_the_density_of_a_gaussian_image(gaussian):
    denoise, state = gaussian
    lams = grid(101)
    z = state(lams[-1]).sample((3,)).view(3, *SHAPE)
    expected = state(lams[-1]).log_prob(z.flatten(1))
    torch.testing.assert_close(EXACT(denoise, z, lams, no_noise), expected, rtol=0, atol=3e-5)


def test_errors_are_of_order_four():
    z, variance = torch.tensor([[-0.7]]), 0.05
    expected = td.Normal(alpha(ENDS(0)) * 0.3, variance_of_states(variance, ENDS(0)).sqrt()).log_prob(z)
    errors = [(EXACT(best(0.3, variance), z, grid(steps), no_noise) - expected).item() for steps in (101, 201)]
    assert order(errors) == pytest.approx(4.0, abs=0.2)
    assert abs(errors[-1]) < 1e-5


def test_the_density_of_a_mixture():
    """Of 0.3 N(-1, 0.1) + 0.7 N(1, 0.1): the divergence depends on z."""
    lams = grid(101)
    shares, means = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.0])

    def parts(z, lam):
        normal = td.Normal(alpha(lam) * means, variance_of_states(0.1, lam).sqrt())
        return shares.log() + normal.log_prob(z)

    def denoise(z, lam):
        return (parts(z, lam).softmax(1) * torch.cat([best(mean, 0.1)(z, lam) for mean in means], 1)).sum(1, True)

    z = torch.tensor([[-1.2], [-0.1], [0.0], [0.9], [1.5]])
    expected = parts(z, lams[-1]).logsumexp(1)
    torch.testing.assert_close(EXACT(denoise, z, lams, no_noise), expected, rtol=0, atol=1e-4)


def test_images_of_another_scale_and_their_jacobian():
    """``log p(x) = log p(z) + D ln alpha`` for ``z = alpha x``: N(0.3, 0.5) up to the noise that is left at the end."""
    lams, x = grid(101), torch.randn(3, *SHAPE)
    log_p = EXACT(best(0.3, 0.5), alpha(lams[-1]) * x, lams, no_noise) + 4 * alpha(lams[-1]).log()
    left = math.exp(-10.0)
    expected = td.Normal(0.3, math.sqrt(0.5 + left)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(log_p, expected, rtol=1e-6, atol=1e-6)


def test_all_directions_of_signs_give_the_exact_divergence(gaussian):
    """The mean over the probes is unbiased. The network is linear, so one estimate has no other error."""
    z, lams = torch.randn(3, *SHAPE), grid(21)
    signs = iter(torch.tensor(list(product([-1.0, 1.0], repeat=4))).view(16, 1, *SHAPE).expand(16, 3, *SHAPE))
    estimate = ProbabilityFlow(probes=16)(gaussian[0], z, lams, lambda shape: 3.7 * next(signs))
    torch.testing.assert_close(estimate, EXACT(gaussian[0], z, lams, no_noise), rtol=1e-11, atol=1e-11)
    assert next(signs, None) is None  # drawn once, for all steps


def test_one_probe_estimates_without_bias_but_with_error(gaussian):
    z, lams = torch.randn(1, *SHAPE).expand(2000, *SHAPE), grid(21)
    estimates = ProbabilityFlow()(gaussian[0], z, lams, torch.randn)
    error = estimates - EXACT(gaussian[0], z[:1], lams, no_noise)
    assert error.std() > 0.01
    assert error.mean().abs() < 3.0 * error.std() / math.sqrt(2000)


@pytest.mark.parametrize("flow", [EXACT, ProbabilityFlow(), ProbabilityFlow(probes=3)], ids=lambda f: str(f.probes))
def test_an_image_alone_has_the_number_that_it_has_in_a_batch(flow):
    images = torch.randn(12, *SHAPE)

    def numbers(ids):
        noise = Draws(seed=3, time=0, ids=torch.tensor(ids)).next_normal
        return flow(network, images[ids].float(), grid(11), noise)

    together = numbers([7, 2, 11])
    assert together.dtype == torch.float64
    assert together.unique().numel() == 3
    for position, number in enumerate([7, 2, 11]):
        torch.testing.assert_close(numbers([number])[0], together[position], rtol=1e-14, atol=1e-14)


def test_four_calls_a_step_and_no_gradients_from_outside():
    counted, z = Counted(network), torch.randn(2, *SHAPE)
    expected = ProbabilityFlow()(counted, z, grid(6), torch.ones)
    assert counted.calls == 20
    assert not expected.requires_grad
    with torch.inference_mode():
        assert ProbabilityFlow()(network, z.clone(), grid(6), torch.ones).equal(expected)
    for probes in (0, -1, 10**9):
        with pytest.raises(ValueError, match="ProbabilityFlow: probes"):
            ProbabilityFlow(probes)
