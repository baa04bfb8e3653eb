"""A linear Gaussian problem in float64, small enough to be worked by hand."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian
from lit_vae.noise import Draws
from lit_vae.objectives import Level, Objective


@pytest.fixture(autouse=True)
def _oracles_in_float64(float64: None) -> None:
    """All tests of this folder are oracles."""


class Problem(NamedTuple):
    """Images ``(B, 1, 2, 3)``, latents ``(B, 2)``, every parameter a leaf with a gradient."""

    x: Tensor
    mean: Tensor
    log_var: Tensor
    weight: Tensor
    prior_mean: Tensor
    prior_log_var: Tensor

    @property
    def posterior(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean, self.log_var)

    @property
    def prior(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.prior_mean.expand_as(self.mean), self.prior_log_var.expand_as(self.mean))

    def decode(self, z: Tensor) -> DiagonalGaussian:
        image = (z @ self.weight).unflatten(-1, (1, 2, 3))
        return DiagonalGaussian(image, torch.tensor(-0.5), event_ndim=3)

    def terms(self, objective: Objective, step: int | None = None, draws: Draws | None = None) -> SimpleNamespace:
        """The terms of an objective by name, and its scalars."""
        z = self.posterior.rsample(objective.num_samples, draws)
        found = objective(self.x, [Level(self.posterior, self.prior, z)], self.decode(z), step)
        return SimpleNamespace(**found.terms, scalars=found.scalars)

    def draws(self, seed: int = 7) -> Draws:
        return Draws(seed, 0, torch.arange(len(self.x)))


def make_problem(batch: int = 5, same_image: bool = False) -> Problem:
    rows = 1 if same_image else batch
    x, mean, log_var = torch.randn(rows, 1, 2, 3), torch.randn(rows, 2), 0.5 * torch.randn(rows, 2) - 0.5
    return Problem(
        x.expand(batch, 1, 2, 3),
        mean.expand(batch, 2).clone().requires_grad_(),
        log_var.expand(batch, 2).clone().requires_grad_(),
        torch.randn(2, 6, requires_grad=True),
        torch.randn(2).requires_grad_(),
        torch.randn(2).requires_grad_(),
    )


@pytest.fixture
def problem() -> Problem:
    return make_problem()


@pytest.fixture
def new_problem():
    return make_problem
