"""Samplers on Gaussian data, whose exact paths are known, and against diffusers."""

import math
from itertools import pairwise

import pytest
import torch
from diffusion_helpers import EDM, Counted, best, edm_grid, linear, no_noise, order, variance_of_states

from lit_vae.diffusion.grids import UniformLogSNR, UniformTime
from lit_vae.diffusion.log_snr import alpha, sigma
from lit_vae.diffusion.samplers import DDIM, DPMSolverPlusPlus2M, Heun, Sampler
from lit_vae.noise import Draws

pytestmark = pytest.mark.usefixtures("float64")

DETERMINISTIC = [DDIM(), Heun(), DPMSolverPlusPlus2M()]


def name_of(part):
    return f"{type(part).__name__}{getattr(part, 'eta', '')}" if isinstance(part, Sampler) else str(part)


EVERY = [*DETERMINISTIC, DDIM(eta=0.5), DDIM(eta=1.0)]
every_sampler = pytest.mark.parametrize("sampler", EVERY, ids=name_of)
every_deterministic = pytest.mark.parametrize("sampler", DETERMINISTIC, ids=name_of)
V = 0.25


def network(z, lam):
    """Not linear, and different at each pixel."""
    return torch.tanh(2.0 * z + torch.linspace(-1, 1, z[0].numel()).view(z[0].shape)) * torch.sigmoid(lam / 4)


@pytest.mark.parametrize(
    ("sampler", "expected"), list(zip(DETERMINISTIC, (0.99, 2.01, 2.02), strict=True)), ids=name_of
)
def test_orders_of_convergence_on_gaussian_data(sampler, expected):
    """``y(s) = y(80) sqrt((v + s^2) / (v + 80^2))`` for ``y = z / alpha``."""
    z = torch.tensor([[1.3], [-0.4]])
    errors = []
    for steps in (161, 321):
        lams = edm_grid(steps)
        y = z / alpha(lams[0]) * math.sqrt((V + 0.002**2) / (V + 80.0**2))
        solved = sampler.solve(best(0.0, V), z, lams, no_noise)
        errors.append((solved / alpha(lams[-1]) / y - 1.0)[0].item())
        image = sampler(best(0.0, V), z, lams, no_noise)
        torch.testing.assert_close(image, best(0.0, V)(solved, lams[-1]), rtol=0, atol=0)
    assert order(errors) == pytest.approx(expected, abs=0.006)
    assert abs(errors[-1]) < (0.02 if expected < 1 else 1e-3)


@pytest.mark.parametrize(("steps", "expected"), [(10, 0.1375), (50, 0.251), (250, 0.289), (1000, 0.297)])
def test_the_ancestral_sampler_has_the_variance_of_its_recursion(steps, expected):
    """Image k of the batch has 1 as the k-th random number and 0 elsewhere, so their squares add up to the variance."""
    v, lams = 0.3, UniformTime()(linear(13.3, -5.0), steps + 1)
    units = iter(torch.eye(steps + 1)[1:])
    z = torch.eye(steps + 1)[0]
    variance = DDIM(eta=1.0).solve(best(0.0, v), z, lams, lambda shape: next(units)).square().sum()
    assert next(units, None) is None
    by_hand = torch.ones(())
    for t, s in pairwise(lams):  # q(z_s | z_t, x = x_hat), as in VDM
        c, k = -torch.expm1(t - s), alpha(t) * v / variance_of_states(v, t)
        mean = alpha(s) / alpha(t) * (1 - c) + alpha(s) * c * k
        by_hand = mean**2 * by_hand + sigma(s) ** 2 * c
    torch.testing.assert_close(variance, by_hand, rtol=1e-11, atol=0)
    assert (variance / alpha(lams[-1]) ** 2).item() == pytest.approx(expected, abs=6e-4)


@every_sampler
def test_one_more_step_of_an_exact_network_draws_the_image_itself(sampler):
    """If x_hat does not change, all samplers give it, from any state and however far apart the nodes are."""
    x = torch.randn(3, 1, 2, 2)
    for schedule in (EDM, linear(60.0, -60.0), linear(1.0, -1.0)):
        for steps in (2, 5):
            lams = UniformLogSNR()(schedule, steps)
            z = alpha(lams[0]) * x + sigma(lams[0]) * torch.randn_like(x)
            solved = sampler.solve(lambda z, lam: x, z, lams, torch.randn)
            assert ((solved - alpha(lams[-1]) * x).abs() <= 6.0 * sigma(lams[-1]) + 1e-14).all()
            assert sampler(lambda z, lam: x, z, lams, torch.randn).equal(x)


@every_deterministic
def test_the_noise_stays_the_same_if_the_network_knows_the_image(sampler):
    """From a log-SNR of -60 to 60 no digit is lost."""
    eps = torch.randn(3, 4)
    lams = UniformLogSNR()(linear(60.0, -60.0), 30)
    solved = sampler.solve(lambda z, lam: torch.zeros_like(z), sigma(lams[0]) * eps, lams, no_noise)
    torch.testing.assert_close(solved, sigma(lams[-1]) * eps, rtol=1e-12, atol=0)


@every_sampler
def test_a_step_calls_the_network_once_and_heun_twice(sampler):
    counted = Counted(network)
    sampler(counted, torch.randn(2, 3), edm_grid(10), torch.randn)
    assert counted.calls == (19 if isinstance(sampler, Heun) else 10)


def test_ddim_is_euler_in_sigma_over_alpha():
    """The previous step is the neighbour in the grid, whatever the spacing."""
    z = torch.randn(4, 1, 2, 3)
    for lams in (edm_grid(9), UniformTime()(lambda t: -2.0 * torch.log(torch.tan(1.5 * t + 0.03)), 9)):
        y, a = z / alpha(lams[0]), torch.exp(-lams / 2)
        for i in range(8):
            y = y + (a[i + 1] - a[i]) * (y - network(alpha(lams[i]) * y, lams[i])) / a[i]
        solved = DDIM().solve(network, z, lams, no_noise)
        torch.testing.assert_close(solved, alpha(lams[-1]) * y, rtol=1e-10, atol=1e-10)


def test_ddim_is_euler_in_t_of_the_linear_path():
    """``(1 - t) x + t eps`` with velocity ``eps - x`` (flow matching)."""
    t = torch.linspace(0.98, 0.02, 13)
    lams = 2.0 * torch.log((1 - t) / t)
    z = torch.randn(4, 3)
    path = (1 - t[0]) / alpha(lams[0]) * z
    for i in range(12):
        x_hat = network(alpha(lams[i]) / (1 - t[i]) * path, lams[i])
        path = path + (t[i + 1] - t[i]) * (path - x_hat) / t[i]
    solved = DDIM().solve(network, z, lams, no_noise)
    torch.testing.assert_close(solved, alpha(lams[-1]) / (1 - t[-1]) * path, rtol=1e-11, atol=1e-11)


def test_heun_is_algorithm_1_of_edm():
    lams = edm_grid(18)
    z = torch.randn(4, 1, 2, 3)
    a = [*torch.exp(-lams / 2), torch.tensor(0.0)]
    nets = [*lams, None]
    y = z / alpha(lams[0])

    def slope(y, i):
        return (y - network(alpha(nets[i]) * y, nets[i])) / a[i]

    for i in range(18):
        first = slope(y, i)
        euler = y + (a[i + 1] - a[i]) * first
        y = euler if nets[i + 1] is None else y + (a[i + 1] - a[i]) * (first + slope(euler, i + 1)) / 2
    torch.testing.assert_close(Heun()(network, z, lams, no_noise), y, rtol=1e-9, atol=1e-11)


@every_sampler
def test_an_image_is_the_same_in_any_batch(sampler):
    """With noise that is a function of the image."""

    def sample(ids):
        draws = Draws(seed=3, time=0, ids=torch.tensor(ids))
        z = draws.next_normal((len(ids), 1, 2, 3))
        return sampler(network, z, edm_grid(8), draws.next_normal)

    together = sample([7, 2, 11])
    assert together.dtype == torch.float64
    for position, number in enumerate([7, 2, 11]):
        assert sample([number])[0].equal(together[position])
    assert sample([2, 7])[1].equal(together[0])
    assert not together[0].equal(together[1])


def test_eta_scales_the_noise_that_is_replaced():
    """A step keeps the variance of pure noise whatever eta is; eta is in [0, 1]."""
    lams = torch.tensor([-1.0, 0.5])
    for eta in (0.0, 0.3, 1.0):
        for unit, expected in (
            ((1.0, 0.0), 1 - eta**2 * (1 - math.exp(-1.5))),
            ((0.0, 1.0), eta**2 * (1 - math.exp(-1.5))),
        ):
            z, n = sigma(lams[0]) * torch.tensor([unit[0]]), torch.tensor([unit[1]])
            solved = DDIM(eta).solve(lambda z, lam: torch.zeros_like(z), z, lams, lambda shape, n=n: n)
            assert (solved / sigma(lams[1])).square().item() == pytest.approx(expected, abs=1e-14)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="DDIM: eta"):
            DDIM(eta)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of torch, for numpy 2
@pytest.mark.parametrize("name", ["DDIMScheduler", "DDIMScheduler-ancestral", "DPMSolverMultistepScheduler"])
def test_diffusers_draws_the_same(name):
    """With ten steps of a thousand: there its previous step is the neighbour in the grid, and no sigma is rounded."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name.partition("-")[0])(prediction_type="sample", timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    if isinstance(scheduler, diffusers.DDIMScheduler):
        scheduler.register_to_config(clip_sample=False)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
        lams, tolerance = torch.logit(scheduler.alphas_cumprod[scheduler.timesteps]), 1e-9
        eta = float(name.endswith("ancestral"))
        sampler = DDIM(eta)
    else:
        lams, tolerance = -2.0 * torch.log(scheduler.sigmas[:-1].double()), 1e-5  # it works in float32
        sampler, eta = DPMSolverPlusPlus2M(), None
    z = torch.randn(2, 1, 3, 3)
    draws = [torch.randn(2, 1, 3, 3) for _ in range(10)]
    theirs = z
    for i, t in enumerate(scheduler.timesteps):
        given = {} if eta is None else {"eta": eta, "variance_noise": draws[i]} if eta else {"eta": eta}
        theirs = scheduler.step(network(theirs.double(), lams[i]), t, theirs, **given).prev_sample
    noise = iter(draws)
    ours = sampler(network, z, lams, lambda shape: next(noise))
    torch.testing.assert_close(ours, theirs.double(), rtol=tolerance, atol=tolerance)
