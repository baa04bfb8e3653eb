"""Noise schedules: the log signal-to-noise ratio as a function of time, from t = 0 (data) to t = 1 (noise).

Only the ends of a schedule change a bound in continuous time. Its inside decides how much the estimate varies (Kingma
et al., "Variational Diffusion Models", 2021, sec. 5.1).
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from lit_vae.ranges import PositiveFloat, SmallCount, Within, checked

LogSNR = Annotated[float, Within(ge=-20.0, le=20.0)]
"""Beyond these ends float32 does not separate a state from pure noise, or from the image."""


Root = TypeVar("Root", float, Tensor)


class Moment(NamedTuple):
    """A schedule at times ``t (B,)``.

    Attributes:
        lam: log signal-to-noise ratio, ``(B,)``.
        slope: ``-d lam / dt > 0``, ``(B,)``.
        inside: tensors ``(B,)`` on which learned parameters act that do not change the bound; see `LearnedMonotone`.
    """

    lam: Tensor
    slope: Tensor
    inside: tuple[Tensor, ...] = ()


class NoiseSchedule(nn.Module, ABC):
    """A decreasing function of time: ``lam_max`` at t = 0, ``lam_min`` at t = 1.

    Eight-bit images need ``lam_max`` of about 13.3: at 12 the last term of the bound is 0.4 bits per dimension larger.
    Binary images need about 4.
    """

    lam_max: float | Tensor
    lam_min: float | Tensor

    def __init__(self, lam_max: float, lam_min: float) -> None:
        super().__init__()
        if lam_max <= lam_min:
            raise ValueError(
                f"{type(self).__name__}: lam_max (={lam_max:g}) must be larger than lam_min (={lam_min:g}): time 0 is"
                " the image. Swap them."
            )
        self.lam_max, self.lam_min = lam_max, lam_min

    @property
    def is_learned(self) -> bool:
        """Whether it has parameters."""
        return any(True for _ in self.parameters())

    @abstractmethod
    def at(self, t: Tensor) -> Moment:
        """The schedule at times ``t`` in [0, 1], of any shape and floating dtype."""

    def forward(self, t: Tensor) -> Tensor:
        """``lam(t)``, in the shape and dtype of ``t``."""
        return self.at(t).lam.to(t.dtype)


class LinearLogSNR(NoiseSchedule):
    """``lam`` falls linearly in time."""

    lam_max: float
    lam_min: float

    @checked
    def __init__(self, lam_max: LogSNR = 13.3, lam_min: LogSNR = -5.0) -> None:
        super().__init__(lam_max, lam_min)

    def at(self, t: Tensor) -> Moment:
        """See `NoiseSchedule`."""
        fall = self.lam_max - self.lam_min
        return Moment(self.lam_max - fall * t, torch.full_like(t, fall))


class _PartOfPath(NoiseSchedule):
    """A path from no noise to no signal, of which the part between the two ends is used.

    A subclass defines the whole path: ``path(u)`` falls from infinity at u = 0 to minus infinity at u = 1.
    """

    def __init__(self, lam_max: float, lam_min: float) -> None:
        super().__init__(lam_max, lam_min)
        self.first, self.last = self.place(lam_max), self.place(lam_min)

    @abstractmethod
    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``lam`` and ``-d lam / du`` at a place u in (0, 1)."""

    @abstractmethod
    def place(self, lam: float) -> float:
        """The inverse of `path`."""

    def at(self, t: Tensor) -> Moment:
        """See `NoiseSchedule`."""
        width = self.last - self.first
        lam, slope = self.path(self.first + width * t)
        return Moment(lam, width * slope)


class Cosine(_PartOfPath):
    """``alpha = cos(pi u / 2)``.

    Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021, eq. 17. Theirs is
    shifted by 0.008, so that the noise has a minimum; here ``lam_max`` is that minimum.
    """

    @checked
    def __init__(self, lam_max: LogSNR = 13.3, lam_min: LogSNR = -13.3) -> None:
        super().__init__(lam_max, lam_min)

    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``-2 ln tan(pi u / 2)``."""
        return -2.0 * torch.log(torch.tan(0.5 * math.pi * u)), 2.0 * math.pi / torch.sin(math.pi * u)

    def place(self, lam: float) -> float:
        """See the base class."""
        return 2.0 / math.pi * math.atan(math.exp(-0.5 * lam))


class LinearPath(_PartOfPath):
    """``(1 - u) x + u eps``, the path of flow matching (Lipman et al., "Flow Matching for Generative Modeling", 2023).

    Args:
        lam_max: at t = 0.
        lam_min: at t = 1.
        shift: k moves the path towards noise by ``u' = k u / (1 + (k - 1) u)``, that is ``lam - 2 ln k`` (Esser et al.,
            "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024, eq. 23).
    """

    @checked
    def __init__(self, lam_max: LogSNR = 13.3, lam_min: LogSNR = -13.3, shift: PositiveFloat = 1.0) -> None:
        self.offset = 2.0 * math.log(shift)
        super().__init__(lam_max, lam_min)

    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``2 ln((1 - u) / u) - 2 ln k``."""
        return 2.0 * (torch.log1p(-u) - u.log()) - self.offset, 2.0 / (u * (1.0 - u))

    def place(self, lam: float) -> float:
        """See the base class."""
        return 1.0 / (1.0 + math.exp(0.5 * (lam + self.offset)))


class Betas(_PartOfPath):
    """``alpha^2 = exp(-B)``, where B is the integral of a rate ``beta(u)``: the schedules of DDPM and latent diffusion.

    Their betas of 1000 steps are this rate over 1000; the whole path has infinitely many steps (Song et al.,
    "Score-Based Generative Modeling", 2021, eq. 11). DDPM (Ho et al. 2020) has betas of 1e-4 to 0.02, the default here.
    Latent diffusion (Rombach et al. 2022) has 0.0015 to 0.0195: ``beta_min: 1.5, beta_max: 19.5, power: 2``. The path
    reaches ``u = 1`` near ``lam = -10`` and goes on.

    Args:
        lam_max: at t = 0. The first of those steps: 9.21 of DDPM, 6.5 of latent diffusion.
        lam_min: at t = 1. The last one: -10.12 of DDPM, -8.86 of latent diffusion.
        beta_min: rate at u = 0.
        beta_max: rate at u = 1.
        power: 1: the rate is linear in u; 2: its square root is.
    """

    @checked
    def __init__(
        self,
        lam_max: LogSNR = 9.21,
        lam_min: LogSNR = -10.12,
        beta_min: PositiveFloat = 0.1,
        beta_max: PositiveFloat = 20.0,
        power: Literal[1, 2] = 1,
    ) -> None:
        if beta_min > beta_max:
            raise ValueError(
                f"Betas: beta_min (={beta_min:g}) must be at most beta_max (={beta_max:g}): the rate of the noise"
                " grows. Swap them."
            )
        self.root = beta_min ** (1.0 / power)
        self.rise = beta_max ** (1.0 / power) - self.root
        self.power = power
        super().__init__(lam_max, lam_min)

    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """``-ln(e^B - 1)``."""
        root = self.root + self.rise * u
        integral = u * self._mean(root)
        return -torch.log(torch.expm1(integral)), root**self.power / -torch.expm1(-integral)

    def place(self, lam: float) -> float:
        """See the base class."""
        integral, order = math.log1p(math.exp(-lam)), self.power + 1
        root = (order * self.rise * integral + self.root**order) ** (1.0 / order)
        return integral / self._mean(root)

    def _mean(self, root: Root) -> Root:
        """Mean rate from 0 to the place where the rate is ``root ** power``, without a difference of near numbers."""
        terms = [root**k * self.root ** (self.power - k) for k in range(self.power + 1)]
        return sum(terms[1:], terms[0]) / len(terms)


class LearnedMonotone(NoiseSchedule):
    """A learned monotone schedule (Kingma et al. 2021, appendix H).

    Its ends learn from the bound. Its inside cannot change the bound, only the variance of the estimate: it learns from
    the squared loss, by one backward pass (appendix I; see `GaussianDiffusion.diffusion_loss`).

    Args:
        lam_max: at t = 0; with ``learn_ends`` at the start of training.
        lam_min: at t = 1; with ``learn_ends`` at the start of training.
        num_steps: number of smooth steps that the schedule is a sum of, beside a line.
        learn_ends: whether the ends are parameters.
    """

    @checked
    def __init__(
        self, lam_max: LogSNR = 13.3, lam_min: LogSNR = -5.0, num_steps: SmallCount = 64, learn_ends: bool = False
    ) -> None:
        super().__init__(lam_max, lam_min)
        if learn_ends:
            del self.lam_max, self.lam_min
            self.lam_max, self.lam_min = nn.Parameter(torch.tensor(lam_max)), nn.Parameter(torch.tensor(lam_min))
        self.centres = nn.Parameter(torch.linspace(0.0, 1.0, num_steps))
        self.log_widths = nn.Parameter(torch.full((num_steps,), -math.log(num_steps)))
        self.log_heights = nn.Parameter(torch.full((num_steps,), -math.log(num_steps) - 2.0))

    def at(self, t: Tensor) -> Moment:
        """See `NoiseSchedule`. Computed in the dtype of the parameters."""
        t = t.to(self.centres)
        share, slope = self._rise(t)
        (start, end), _ = self._rise(t.new_tensor([0.0, 1.0]))
        share, slope = (share - start) / (end - start), slope / (end - start)
        fall = self.lam_max - self.lam_min
        return Moment(self.lam_max - fall * share, fall * slope, (share, slope))

    def _rise(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """An increasing function of time, and its derivative: ``t + sum_k h_k sigmoid((t - c_k) / w_k)``."""
        step = ((t[..., None] - self.centres) / self.log_widths.exp()).sigmoid()
        heights = self.log_heights.exp()
        slopes = step * (1.0 - step) * heights / self.log_widths.exp()
        return t + (step * heights).sum(-1), 1.0 + slopes.sum(-1)  # no matrix product: autocast would round it to bf16
