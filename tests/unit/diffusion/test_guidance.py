"""Guidance on Gaussians and mixtures, whose guided paths are known."""

import math

import pytest
import torch
from diffusion_helpers import Counted, best, edm_grid, no_noise, order, variance_of_states
from torch import distributions as td

from lit_vae.diffusion.grids import with_nodes
from lit_vae.diffusion.guidance import ClassifierFree, ClassifierGuidance
from lit_vae.diffusion.log_snr import alpha, sigma
from lit_vae.diffusion.samplers import DDIM, Heun

pytestmark = pytest.mark.usefixtures("float64")

C, U = 0.2, 1.0


def guided_gaussian(mean, scale, start):
    """Mean and deviation at ``a = 0.002`` of the exact guided path of N(mean, C) and N(0, U) from ``start`` at 80."""
    a = torch.exp(torch.linspace(math.log(0.002), math.log(80.0), 20001))
    h = ((C + a**2) ** scale * (U + a**2) ** (1 - scale)).sqrt()
    integral = torch.trapezoid(a**2 / ((C + a**2) * h), a.log())
    return h[0] * scale * mean * integral, start * h[0] / h[-1]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_guided_gaussians_on_all_channels(scale):
    means = torch.tensor([1.0, -0.7, 0.0, 2.5]).view(4, 1, 1).expand(4, 2, 1)
    lams = edm_grid(400)
    denoise = ClassifierFree(scale)(best(means, C), best(0.0, U))
    z = torch.stack([torch.zeros(4, 2, 1), torch.ones(4, 2, 1)])
    low, high = Heun().solve(denoise, z, lams, no_noise) / alpha(lams[-1])
    mean, deviation = guided_gaussian(means, scale, 1.0 / alpha(lams[0]))
    torch.testing.assert_close(low, mean.expand(4, 2, 1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(high - low, deviation.expand(4, 2, 1), rtol=1e-3, atol=0)


def test_scale_2_does_not_draw_the_tilted_density():
    """It draws N(1.318, 0.200^2); ``p(x | y)^2 / p(x)`` is N(1.111, 0.333^2)."""
    lams = edm_grid(400)
    denoise = ClassifierFree(scale=2.0)(best(1.0, C), best(0.0, U))
    low, high = (Heun()(denoise, torch.tensor([[0.0], [1.0]]), lams, no_noise)).flatten().tolist()
    assert low == pytest.approx(1.318, abs=5e-4)
    assert high - low == pytest.approx(0.200, abs=5e-4)
    precision = 2 / C - 1 / U
    assert (2 / C / precision, precision**-0.5) == pytest.approx((1.111, 0.333), abs=5e-4)


def test_scale_1_is_the_conditional_network_bit_for_bit_in_one_call():
    z, lam = torch.randn(5, 3), torch.tensor(0.3)
    strong, weak = Counted(best(0.4, 0.3)), Counted(best())
    for denoise in (ClassifierFree()(strong, weak), ClassifierFree(scale=1.0, interval=(-1.0, 1.0))(strong, weak)):
        assert denoise(z, lam).equal(best(0.4, 0.3)(z, lam))
    assert (strong.calls, weak.calls) == (2, 0)


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 7.5])
def test_the_formula_is_the_same_for_noises_and_any_weak_network(scale):
    z, lam = torch.randn(5, 3), torch.tensor(0.3)
    strong, weak = best(0.4, 0.3)(z, lam), torch.tanh(z)
    guided = ClassifierFree(scale)(best(0.4, 0.3), lambda z, lam: torch.tanh(z))(z, lam)
    torch.testing.assert_close(guided, (1 - scale) * weak + scale * strong, rtol=1e-13, atol=1e-13)
    eps, eps_strong, eps_weak = ((z - alpha(lam) * x) / sigma(lam) for x in (guided, strong, weak))
    torch.testing.assert_close(eps, (1 - scale) * eps_weak + scale * eps_strong, rtol=1e-12, atol=1e-12)
    assert scale != 0.0 or guided.equal(weak)


def test_outside_of_the_interval_is_no_guidance():
    seen = []
    strong = Counted(best(0.4, 0.3))

    def weak(z, lam):
        seen.append(lam.item())
        return torch.zeros_like(z)

    guidance = ClassifierFree(scale=3.0, interval=(-1.0, 2.5))
    lams = with_nodes(torch.linspace(-4.0, 6.0, 6), guidance.interval)
    assert lams.tolist() == [-4.0, -2.0, -1.0, 0.0, 2.0, 2.5, 4.0, 6.0]
    DDIM()(guidance(strong, weak), torch.randn(2, 3), lams, no_noise)
    assert seen == [-1.0, 0.0, 2.0]  # the step that begins at 2.5 is outside
    assert strong.calls == 8
    z, lam = torch.randn(5, 3), torch.tensor(2.5)
    assert guidance(strong, weak)(z, lam).equal(best(0.4, 0.3)(z, lam))


@pytest.mark.parametrize(("sampler", "expected"), [(DDIM(), 1.0), (Heun(), 2.0)], ids=["DDIM", "Heun"])
def test_with_the_ends_of_the_interval_as_nodes_a_sampler_keeps_its_order(sampler, expected):
    """Without them, errors depend on where their neighbours happen to be."""
    interval = (-1.234, 2.345)
    denoise = ClassifierFree(3.0, interval)(best(1.0, C), best(0.0, U))
    z = torch.tensor([[0.3]])

    def drawn(steps):
        return sampler(denoise, z, with_nodes(edm_grid(steps), interval), no_noise).item()

    coarse, middle, fine = (drawn(steps) for steps in (101, 201, 401))
    assert order([coarse - middle, middle - fine]) == pytest.approx(expected, abs=0.15)


MEANS = torch.tensor([[1.0, -0.5], [-0.8, 0.2], [0.1, 1.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def classifier(z, lam, y=0):
    """The exact ``log p(y | z)`` of a mixture of three Gaussians of variance C."""
    states = td.Normal(alpha(lam) * MEANS, variance_of_states(C, lam).sqrt())
    return (WEIGHTS.log() + states.log_prob(z[:, None]).sum(2)).log_softmax(1)[:, y]


def mixture(z, lam):
    """``E[x | z]`` of the mixture."""
    shares = torch.stack([classifier(z, lam, y).exp() for y in range(3)], 1)
    return (shares[:, :, None] * torch.stack([best(mean, C)(z, lam) for mean in MEANS], 1)).sum(1)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_exact_classifier_of_noisy_states_guides_as_classifier_free(scale):
    by_classifier = ClassifierGuidance(scale)(mixture, classifier)
    free = ClassifierFree(scale)(best(MEANS[0], C), mixture)
    for lam in torch.linspace(-12.0, 12.0, 9):
        z = alpha(lam) * torch.randn(7, 2) + sigma(lam) * torch.randn(7, 2)
        torch.testing.assert_close(by_classifier(z, lam), free(z, lam), rtol=1e-10, atol=1e-10)
    z = torch.randn(7, 2)
    drawn, expected = (Heun()(denoise, z, edm_grid(20), no_noise) for denoise in (by_classifier, free))
    torch.testing.assert_close(drawn, expected, rtol=1e-9, atol=1e-9)


def test_classifier_guidance_needs_no_gradients_from_outside_and_scale_0_is_none():
    z, lam = torch.randn(7, 2), torch.tensor(0.5)
    guided = ClassifierGuidance(2.0)(mixture, classifier)
    expected = guided(z, lam)
    with torch.inference_mode():
        assert guided(z.clone(), lam).equal(expected)
    assert ClassifierGuidance(0.0)(mixture, classifier) is mixture


def test_bad_arguments_are_named():
    for scale in (-0.5, math.inf, math.nan):
        for kind in (ClassifierFree, ClassifierGuidance):
            with pytest.raises(ValueError, match=f"{kind.__name__}: scale"):
                kind(scale)
    for interval in ((2.0, -1.0), (1.0, 1.0), (-1e9, 0.0), (0.0, math.nan)):
        with pytest.raises(ValueError, match="ClassifierFree: interval"):
            ClassifierFree(2.0, interval)
