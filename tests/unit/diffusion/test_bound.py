"""The bound of a Gaussian diffusion against closed forms, with the optimal denoiser of data whose density is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_vae.diffusion import (
    Betas,
    Bound,
    BoundInSteps,
    Cosine,
    GaussianDiffusion,
    LearnedMonotone,
    LinearLogSNR,
    LinearPath,
    Noise,
    NoiseSchedule,
    Original,
    PixelLevels,
)
from lit_vae.diffusion.log_snr import alpha, sigma

VAR = 0.3
ENDS = 13.3, -5.0


def optimal(z: Tensor, lam: Tensor) -> Tensor:
    """``E[x | z]`` for x ~ N(0, VAR)."""
    a, s = alpha(lam)[:, None], sigma(lam)[:, None]
    return a * VAR * z / (a**2 * VAR + s**2)


def expected_error(lam: Tensor) -> Tensor:
    """``E |eps - eps_hat|^2`` a dimension, for x ~ N(0, VAR) and the optimal denoiser."""
    a2, s2 = alpha(lam) ** 2, sigma(lam) ** 2
    return a2 * VAR / (a2 * VAR + s2)


def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(0.5 * (nodes + 1.0)), torch.from_numpy(0.5 * weights)


def two_points(z_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of a function of (x, eps), quadratic in both, over x ~ N(0, VAR) and eps ~ N(0, 1): four points do."""
    signs = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    x, eps = torch.meshgrid(signs * math.sqrt(VAR), signs, indexing="ij")
    return z_of(x.reshape(-1, 1), eps.reshape(-1, 1)).mean()


def diffusion_in_nats(diffusion: GaussianDiffusion, u: Tensor, weights: Tensor) -> float:
    """The diffusion loss a dimension, by the model's own code, integrated over u."""
    total = 0.0
    for place, weight in zip(u.unbind(), weights.unbind(), strict=True):

        def loss(x: Tensor, eps: Tensor, place: Tensor = place) -> Tensor:
            levels = diffusion.objective(diffusion.schedule, place.expand(len(x)))
            return diffusion.diffusion_loss(optimal, x, levels, eps)

        total += float(weight * two_points(loss))
    return total


SCHEDULES = [
    LinearLogSNR(*ENDS),
    Cosine(*ENDS),
    Betas(*ENDS),
    Betas(*ENDS, beta_min=2.0, beta_max=2.0, power=2),
    LinearPath(*ENDS),
    LinearPath(*ENDS, shift=3.0),
    LearnedMonotone(*ENDS).double(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_schedule_falls_between_its_ends_by_its_slope(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0.0, 1.0, 201, dtype=torch.float64, requires_grad=True)
    lam, slope, _ = schedule.at(t)
    (derivative,) = torch.autograd.grad(lam.sum(), t)
    assert torch.allclose(slope, -derivative, rtol=1e-9)
    assert (slope > 0.0).all()
    assert torch.allclose(lam[[0, -1]], torch.tensor(ENDS, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@torch.no_grad()
def test_only_the_ends_of_a_schedule_change_the_bound(schedule: NoiseSchedule) -> None:
    """Oracle: ``1/2 ln((1 + v SNR_0) / (1 + v SNR_1))``, from Gaussian data of variance v."""
    diffusion = GaussianDiffusion(schedule, Original(), Bound())
    truth = 0.5 * math.log((1.0 + VAR * math.exp(ENDS[0])) / (1.0 + VAR * math.exp(ENDS[1])))
    learned = isinstance(schedule, LearnedMonotone)  # its ends are float32 numbers, and its shape is less smooth
    cube_root, weights = gauss_legendre(300)  # of u: near the data, lam may fall fast
    total = diffusion_in_nats(diffusion, cube_root**3, 3.0 * cube_root**2 * weights)
    assert total == pytest.approx(truth, abs=1e-6 if learned else 1e-10)


@pytest.mark.parametrize(
    ("published", "ends", "schedule"),
    [
        (lambda share: 0.1 + 19.9 * share, (9.21, -10.12), Betas()),
        (lambda share: (1.5**0.5 + (19.5**0.5 - 1.5**0.5) * share) ** 2, (6.5, -8.86), Betas(6.5, -8.86, 1.5, 19.5, 2)),
    ],
    ids=["DDPM", "latent diffusion"],
)
def test_betas_are_the_limit_of_published_steps(
    published: Callable[[Tensor], Tensor], ends: tuple[float, float], schedule: Betas
) -> None:
    apart = []
    for steps in (1000, 10_000):
        betas = published(torch.linspace(0.0, 1.0, steps, dtype=torch.float64)) / steps
        lams = -torch.log(torch.expm1(-torch.log1p(-betas).cumsum(0)))
        later = torch.arange(steps // 10, steps, dtype=torch.float64) / steps
        apart.append(float((schedule.path(later)[0] - lams[steps // 10 - 1 : -1]).abs().max()))
        if steps == 1000:
            assert lams[[0, -1]].tolist() == pytest.approx(ends, abs=0.006)
    assert apart[0] < 0.07
    assert apart[1] == pytest.approx(apart[0] / 10.0, rel=0.05)


def test_betas_that_fall_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Betas: beta_min \(=3\) must be at most beta_max \(=2\).* Swap them."):
        Betas(beta_min=3.0, beta_max=2.0)


@torch.no_grad()
def test_the_whole_bound_of_gaussian_data_is_its_entropy_and_what_the_ends_cost() -> None:
    schedule = LinearLogSNR(*ENDS)
    diffusion = GaussianDiffusion(schedule, Original(), Bound())

    def last(x: Tensor, eps: Tensor) -> Tensor:
        mean, log_var = diffusion.at_data(x, eps)
        return 0.5 * ((x - mean) ** 2 / log_var.exp() + log_var + math.log(2.0 * math.pi)).sum(1)

    bound = float(two_points(lambda x, eps: diffusion.prior_loss(x) + last(x, eps)))
    bound += diffusion_in_nats(diffusion, *gauss_legendre(100))
    snr, lam_1 = math.exp(ENDS[0]), torch.tensor(ENDS[1], dtype=torch.float64)
    var_1 = float(alpha(lam_1) ** 2 * VAR + sigma(lam_1) ** 2)
    prior = 0.5 * (var_1 - math.log(var_1) - 1.0)
    entropy = 0.5 * math.log(2.0 * math.pi * math.e * VAR)
    assert bound == pytest.approx(entropy + prior + 0.5 * math.log1p(1.0 / (VAR * snr)), abs=1e-12)


@pytest.mark.parametrize(("steps", "more"), [(100, 0.539), (1000, 0.0511), (10000, 0.0051)])
@torch.no_grad()
def test_a_model_in_steps_costs_more_as_one_over_their_number(steps: int, more: float) -> None:
    objective, schedule = BoundInSteps(steps), LinearLogSNR(*ENDS)
    u = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    levels = objective(schedule, u)
    total = (levels.weight * expected_error(levels.lam)).mean()
    truth = 0.5 * math.log((1.0 + VAR * math.exp(ENDS[0])) / (1.0 + VAR * math.exp(ENDS[1])))
    assert float(total) - truth == pytest.approx(more, rel=0.02)


@torch.no_grad()
def test_the_steps_of_a_bound_sum_to_the_divergences_of_its_steps() -> None:
    """``T/2 expm1(lam_s - lam_t) |eps - eps_hat|^2 / T = KL(q(z_s | z_t, x) || p(z_s | z_t))`` at each step."""
    steps, schedule = 7, LinearLogSNR(4.0, -6.0)
    levels = BoundInSteps(steps)(schedule, (torch.arange(steps, dtype=torch.float64) + 0.25) / steps)
    error = 0.37  # of eps, so that of x is its sigma / alpha
    for i in range(1, steps + 1):
        s, t = torch.tensor([(i - 1) / steps, i / steps], dtype=torch.float64)
        lam_s, lam_t = schedule(s), schedule(t)
        alpha_ts = alpha(lam_t) / alpha(lam_s)
        var_ts = sigma(lam_t) ** 2 - alpha_ts**2 * sigma(lam_s) ** 2
        var_q = var_ts * sigma(lam_s) ** 2 / sigma(lam_t) ** 2
        of_x = alpha(lam_s) * var_ts / sigma(lam_t) ** 2  # factor of x in the mean of q(z_s | z_t, x)
        kl = (of_x * error * sigma(lam_t) / alpha(lam_t)) ** 2 / (2.0 * var_q)
        assert float(levels.weight[i - 1] * error**2 / steps) == pytest.approx(float(kl), rel=1e-12)


@torch.no_grad()
def test_the_bound_of_independent_binary_pixels_is_their_entropy() -> None:
    p, ends = 0.13, (6.0, -11.0)
    schedule, likelihood = LinearLogSNR(*ends), PixelLevels(2)
    nodes, weights = torch.linspace(-9.0, 9.0, 4001, dtype=torch.float64), 18.0 / 4000
    density = torch.exp(-0.5 * nodes**2) / math.sqrt(2.0 * math.pi) * weights
    logit = math.log(p / (1.0 - p))

    def denoise(z: Tensor, lam: Tensor) -> Tensor:
        a, s = alpha(lam)[:, None], sigma(lam)[:, None]
        return torch.tanh(a * z / s**2 + 0.5 * logit)

    diffusion = GaussianDiffusion(schedule, Original(), Bound())
    total = 0.0
    for value, share in ((1.0, p), (-1.0, 1.0 - p)):
        x, eps = torch.full((len(nodes), 1), value, dtype=torch.float64), nodes[:, None]
        for u, weight in zip(*gauss_legendre(60), strict=True):
            levels = diffusion.objective(schedule, u.expand(len(nodes)))
            total += share * float(weight * (density * diffusion.diffusion_loss(denoise, x, levels, eps)).sum())
        mean, log_var = diffusion.at_data(x, eps)
        parameters = torch.cat([mean, log_var], 1)[:, :, None, None]
        last = -likelihood(parameters).log_prob(x[:, :, None, None])
        total += share * float((density * (diffusion.prior_loss(x) + last)).sum())
    entropy = -(p * math.log(p) + (1.0 - p) * math.log(1.0 - p))
    assert entropy == pytest.approx(0.3864, abs=1e-4)
    assert total == pytest.approx(entropy, abs=2e-4)


@pytest.mark.parametrize(("lam_0", "bits"), [(13.3, 0.01006), (12.0, 0.4135), (11.0, 1.1067)])
@torch.no_grad()
def test_what_the_end_at_the_data_costs_eight_bit_pixels(lam_0: float, bits: float) -> None:
    """Oracle: a quadrature over the noise, with levels without ends."""
    eps = torch.randn(200, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    levels = torch.randint(1, 255, eps.shape, generator=torch.Generator().manual_seed(1))
    x = levels.double() / 127.5 - 1.0
    diffusion = GaussianDiffusion(LinearLogSNR(lam_0, -5.0), Noise(), Bound())
    mean, log_var = diffusion.at_data(x, eps)
    distribution = PixelLevels(256)(torch.cat([mean, log_var], 1))
    cost = -distribution.log_prob(x) / (192 * math.log(2.0))
    error = float(cost.std()) / math.sqrt(len(x))
    assert float(cost.mean()) == pytest.approx(bits, abs=max(4.0 * error, 0.002))


@torch.no_grad()
def test_all_levels_of_a_pixel_share_one_probability() -> None:
    every = (torch.arange(256, dtype=torch.float64) / 127.5 - 1.0).view(256, 1, 1, 1)
    parameters = torch.tensor([0.3, -9.0], dtype=torch.float64).view(1, 2, 1, 1).expand(256, 2, 1, 1)
    assert float(PixelLevels(256)(parameters).log_prob(every).exp().sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_inside_of_a_learned_schedule_learns_from_the_squared_loss_and_its_ends_from_the_loss() -> None:
    schedule = LearnedMonotone(4.0, -6.0, num_steps=5, learn_ends=True).double()
    diffusion = GaussianDiffusion(schedule, Original(), Bound())
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).unbind()
    u = torch.rand(6, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return diffusion.diffusion_loss(optimal, x, diffusion.objective(schedule, u), eps)

    inside = [schedule.centres, schedule.log_widths, schedule.log_heights]
    ends = [schedule.lam_max, schedule.lam_min]
    loss().mean().backward()
    found = [p.grad.clone() for p in [*inside, *ends]]  # type: ignore[union-attr]

    def difference(parameter: Tensor, index: int, power: int) -> float:
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[index] += step
                values.append(float((loss() ** power).mean()))
                parameter.view(-1)[index] -= step
        return (values[0] - values[1]) / 2e-6

    for parameter, gradient in zip(inside, found, strict=False):
        assert float(gradient[2]) == pytest.approx(difference(parameter, 2, 2), rel=1e-5)
    for parameter, gradient in zip(ends, found[3:], strict=True):
        assert float(gradient) == pytest.approx(difference(parameter, 0, 1), rel=1e-5)


def test_a_schedule_that_learns_needs_the_bound() -> None:
    with pytest.raises(ValueError, match="LearnedMonotone learns from the bound in continuous time"):
        GaussianDiffusion(LearnedMonotone(), Noise(), BoundInSteps(10))


def test_ends_that_are_swapped_are_told() -> None:
    with pytest.raises(ValueError, match="must be larger than lam_min"):
        LinearLogSNR(-5.0, 13.3)
