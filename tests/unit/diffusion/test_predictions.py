"""All predictions are one network in other units, and all losses are one loss with other weights."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_vae.diffusion import (
    Cosine,
    DiffusionObjective,
    FlowVelocity,
    LinearPath,
    Noise,
    NoiseSchedule,
    NormalLogSNRs,
    Original,
    Preconditioned,
    Prediction,
    Score,
    SquaredError,
    Velocity,
)
from lit_vae.diffusion.log_snr import alpha, per_image, sigma

PREDICTIONS = [Noise(), Original(), Velocity(), Score(), FlowVelocity(), Preconditioned(0.5), Preconditioned(1.0)]
LAM = torch.tensor([-18.0, -5.0, -0.3, 0.0, 2.4, 8.0, 16.0], dtype=torch.float64)


def kind(prediction: Prediction) -> str:
    return type(prediction).__name__


def example() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, len(LAM), 2, 3, 3, generator=generator, dtype=torch.float64).unbind()
    return x, eps, per_image(alpha(LAM), x) * x + per_image(sigma(LAM), x) * eps


def true_output(prediction: Prediction, x: Tensor, eps: Tensor, z: Tensor) -> Tensor:
    """What a perfect network would say, from the definition of each prediction."""
    a, s = per_image(alpha(LAM), x), per_image(sigma(LAM), x)
    if isinstance(prediction, Preconditioned):
        y, noise, std = z / a, s / a, prediction.data_std
        skip, out = std**2 / (noise**2 + std**2), noise * std / (noise**2 + std**2).sqrt()
        return (x - skip * y) / out
    return {Noise: eps, Original: x, Velocity: a * eps - s * x, Score: -eps / s, FlowVelocity: eps - x}[
        type(prediction)
    ]


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=kind)
def test_a_perfect_output_gives_image_and_noise(prediction: Prediction) -> None:
    x, eps, z = example()
    output = true_output(prediction, x, eps, z)
    # what has hardly any weight in the state cannot come back to full precision
    assert torch.allclose(prediction.x(z, output, LAM), x, rtol=1e-9, atol=1e-8)
    assert torch.allclose(prediction.eps(z, output, LAM), eps, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=kind)
def test_image_and_noise_of_any_output_make_up_the_state(prediction: Prediction) -> None:
    x, _, z = example()
    output = torch.randn_like(x)
    x_hat, eps_hat = prediction.x(z, output, LAM), prediction.eps(z, output, LAM)
    again = per_image(alpha(LAM), x) * x_hat + per_image(sigma(LAM), x) * eps_hat
    assert torch.allclose(again, z, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize(
    ("prediction", "ratio"),
    [
        (Noise(), torch.ones_like),
        (Original(), lambda lam: torch.exp(-lam)),
        (Velocity(), lambda lam: 1.0 + torch.exp(-lam)),
        (Score(), lambda lam: 1.0 / torch.sigmoid(-lam)),
        (FlowVelocity(), lambda lam: (1.0 + torch.exp(-0.5 * lam)) ** 2),
        (Preconditioned(0.5), lambda lam: (torch.exp(-lam) + 0.25) / 0.25),
    ],
    ids=lambda p: kind(p) if isinstance(p, Prediction) else "",
)
def test_errors_of_predictions_have_a_fixed_ratio(prediction: Prediction, ratio: Callable[[Tensor], Tensor]) -> None:
    """Oracle: the table of ratios c, and the errors of a wrong output."""
    x, eps, z = example()
    wrong = true_output(prediction, x, eps, z) + torch.randn_like(x)
    error = (wrong - true_output(prediction, x, eps, z)).square().flatten(1).sum(1)
    of_eps = (prediction.eps(z, wrong, LAM) - eps).square().flatten(1).sum(1)
    assert torch.allclose(prediction.error_ratio(LAM), ratio(LAM), rtol=1e-9)
    assert torch.allclose(of_eps * ratio(LAM), error, rtol=1e-5)


def test_preconditioning_with_unit_deviation_is_minus_the_velocity() -> None:
    for ours, theirs in zip(
        [*Preconditioned(1.0).eps_coefficients(LAM), *Preconditioned(1.0).x_coefficients(LAM)],
        [*Velocity().eps_coefficients(LAM), *Velocity().x_coefficients(LAM)],
        strict=True,
    ):
        assert torch.allclose(torch.as_tensor(ours).abs(), torch.as_tensor(theirs).abs(), rtol=1e-12)
    z = torch.randn(len(LAM), 3, dtype=torch.float64)
    assert torch.allclose(Preconditioned(1.0).network_input(z, LAM), z, rtol=1e-12)


def normal(mean: float, std: float) -> Callable[[Tensor], Tensor]:
    return lambda lam: torch.exp(-0.5 * ((lam - mean) / std) ** 2) / (std * math.sqrt(2.0 * math.pi))


WIDE = 18.0, -18.0
LOSSES: list[tuple[str, NoiseSchedule, DiffusionObjective, Callable[[Tensor], Tensor]]] = [
    ("flow", LinearPath(*WIDE), SquaredError(FlowVelocity()), lambda lam: torch.exp(-0.5 * lam)),
    ("v_cosine", Cosine(*WIDE), SquaredError(Velocity()), lambda lam: 2.0 / math.pi * torch.exp(-0.5 * lam)),
    ("eps_cosine", Cosine(*WIDE), SquaredError(Noise()), lambda lam: 1.0 / (math.pi * torch.cosh(0.5 * lam))),
    (
        "logit_normal_flow",
        LinearPath(*WIDE),
        SquaredError(FlowVelocity(), NormalLogSNRs(mean=-0.8, std=2.0)),
        lambda lam: 2.0 * normal(-0.8, 2.0)(lam) * (1.0 + torch.exp(-0.5 * lam)) ** 2,
    ),
    (
        "edm",
        LinearPath(*WIDE),
        SquaredError(Preconditioned(0.5), NormalLogSNRs(mean=2.4, std=2.4)),
        lambda lam: 2.0 * normal(2.4, 2.4)(lam) * (torch.exp(-lam) + 0.25) / 0.25,
    ),
]


@pytest.mark.parametrize(("schedule", "objective", "w"), [case[1:] for case in LOSSES], ids=[c[0] for c in LOSSES])
def test_a_squared_error_is_a_weighted_bound(
    schedule: NoiseSchedule, objective: DiffusionObjective, w: Callable[[Tensor], Tensor]
) -> None:
    """Oracle: ``1/2 int w(lam) f(lam) d lam`` by quadrature, for an error f that dies out at both ends."""

    def f(lam: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((lam - 1.0) / 1.5) ** 2)

    n = 400_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    levels = objective(schedule, u)
    lam = torch.linspace(-17.0, 17.0, 20_001, dtype=torch.float64)
    truth = 0.5 * torch.trapezoid(w(lam) * f(lam), lam)

    assert float((levels.weight * f(levels.lam)).mean()) == pytest.approx(float(truth), rel=3e-4)


def test_a_shifted_path_is_the_path_with_less_signal() -> None:
    k, t = 3.0, torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    shifted = k * t / (1.0 + (k - 1.0) * t)
    path = LinearPath()
    assert torch.allclose(LinearPath(shift=k).path(t)[0], path.path(shifted)[0], rtol=1e-12)
    assert torch.allclose(LinearPath(shift=k).path(t)[0], path.path(t)[0] - 2.0 * math.log(k), rtol=1e-12)
