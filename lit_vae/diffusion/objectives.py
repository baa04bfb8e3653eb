"""What a denoising network is trained on: where the noise levels are drawn, and the weight of an error there.

Every objective is ``E weight(lam) |eps - eps_hat|^2``. With the density p(lam) of the levels it is the loss
``1/2 int w(lam) E |eps - eps_hat|^2 d lam`` with ``w = 2 p(lam) weight(lam)``; ``w = 1`` is the bound (Kingma and Gao,
"Understanding Diffusion Objectives as the ELBO with Simple Data Augmentation", 2023, eq. 4).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lit_vae.diffusion.noise_schedules import LogSNR, NoiseSchedule
from lit_vae.diffusion.predictions import Prediction
from lit_vae.ranges import AtLeastTwo, PositiveFloat, checked


class NoiseLevels(NamedTuple):
    """Noise levels of a batch.

    Attributes:
        lam: log signal-to-noise ratio, ``(B,)``.
        weight: of the squared error of the noise, ``(B,)``.
        inside: see `Moment`.
    """

    lam: Tensor
    weight: Tensor
    inside: tuple[Tensor, ...] = ()


class DiffusionObjective(ABC):
    """An objective draws a noise level for each image, from a uniform number."""

    is_bound: bool
    """Whether it is, in expectation, the diffusion term of a bound of log p(x), in nats."""

    @abstractmethod
    def __call__(self, schedule: NoiseSchedule, u: Tensor) -> NoiseLevels:
        """Levels from ``u (B,)`` in [0, 1)."""


class Bound(DiffusionObjective):
    """The bound in continuous time: ``w = 1`` (Kingma et al., "Variational Diffusion Models", 2021, eq. 17)."""

    is_bound = True

    def __call__(self, schedule: NoiseSchedule, u: Tensor) -> NoiseLevels:
        """Uniform times; weight ``-1/2 d lam / dt``."""
        lam, slope, inside = schedule.at(u)
        return NoiseLevels(lam, 0.5 * slope, inside)


class BoundInSteps(DiffusionObjective):
    """The bound of a model with T steps (Kingma et al. 2021, eq. 13 and 14). It is looser than `Bound`.

    Args:
        steps: T. Numbers of models with different T do not compare.
    """

    is_bound = True

    @checked
    def __init__(self, steps: AtLeastTwo = 1000) -> None:
        self.steps = steps

    def __call__(self, schedule: NoiseSchedule, u: Tensor) -> NoiseLevels:
        """A step i in 1, ..., T; weight ``T/2 expm1(lam_s - lam_t)`` with s = (i - 1) / T and t = i / T."""
        i = (u * self.steps).floor() + 1.0
        lam_s, lam_t = schedule.at((i - 1.0) / self.steps).lam, schedule.at(i / self.steps).lam
        return NoiseLevels(lam_t, 0.5 * self.steps * torch.expm1(lam_s - lam_t))


class NormalLogSNRs:
    """Normally distributed levels, wherever the schedule ends.

    Flow matching with logit-normal(m, s) times (Esser et al. 2024, eq. 19) is ``mean: -2 m, std: 2 s``. The times of
    Karras et al. 2022, table 1, with ``P_mean: -1.2, P_std: 1.2``, are ``mean: 2.4, std: 2.4``.

    Args:
        mean: of ``lam``.
        std: of ``lam``.
    """

    @checked
    def __init__(self, mean: LogSNR = 0.0, std: PositiveFloat = 2.0) -> None:
        self.mean, self.std = mean, std

    def __call__(self, u: Tensor) -> Tensor:
        """Levels ``(B,)`` from ``u (B,)`` in [0, 1): ``mean - std Phi^-1(u)``. The noise grows with u, as in time."""
        return self.mean - self.std * torch.special.ndtri(u.clamp(2.0**-25, 1.0 - 2.0**-24))


class SquaredError(DiffusionObjective):
    """A squared error without the weight of the bound: of the noise, the velocity, ...

    It is no bound, and its numbers do not compare between kinds of errors. `Noise` is the simple loss of Ho et al.
    2020, eq. 14; `FlowVelocity` is flow matching; `Preconditioned` is the loss of Karras et al. 2022, eq. 8.

    Args:
        of: what the error is of; the network may predict something else.
        levels: density of the noise levels; null: the schedule's, at uniform times.
    """

    is_bound = False

    def __init__(self, of: Prediction, levels: NormalLogSNRs | None = None) -> None:
        self.of, self.levels = of, levels

    def __call__(self, schedule: NoiseSchedule, u: Tensor) -> NoiseLevels:
        """Levels by their density; weight: the error in units of the noise's."""
        lam = schedule.at(u).lam if self.levels is None else self.levels(u)
        return NoiseLevels(lam, self.of.error_ratio(lam))
