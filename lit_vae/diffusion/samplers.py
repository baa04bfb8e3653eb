"""From noise to images: solvers of the probability-flow ODE, and the ancestral sampler.

In ``y = z / alpha`` and ``a = sigma / alpha`` the ODE is ``dy/da = (y - x_hat) / a`` (Karras et al. 2022, eq. 1 and 3).
With a constant x_hat its solution is `toward`. All samplers take this step, each with its own x_hat.

A state is ``z = alpha x + sigma eps`` in float64. Steps are written with ratios of neighbouring levels, so that none
divides by a small sigma or alpha.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from lit_vae.diffusion.log_snr import alpha, sigma
from lit_vae.images import Shape
from lit_vae.ranges import UnitInterval, checked

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(z (B, ...), lam ()) -> x_hat (B, ...)``, the expected image; all float64, ``lam`` on the CPU."""

DrawNoise = Callable[[Shape], Tensor]
"""``(B, ...) -> `` new draws from N(0, 1) at each call. With `Draws.next_normal` an image's noise is its own."""


def toward(z: Tensor, x_hat: Tensor, t: Tensor, s: Tensor, log_kept: Tensor | float = 0.0) -> Tensor:
    """``alpha_s x_hat + kept sigma_s eps_hat``: from log-SNR t to s with a constant x_hat and ``eps_hat`` of z.

    DDIM's step (Song et al. 2021, eq. 12), which is Euler's in a, and exponential Euler's in log-SNR. ``kept`` is the
    share of the noise's standard deviation that new noise does not replace.
    """
    log_ratio = (t - s) / 2.0 + log_kept  # of kept a_s to a_t
    return torch.exp(log_ratio) * alpha(s) / alpha(t) * z - alpha(s) * torch.expm1(log_ratio) * x_hat


class Sampler(ABC):
    """``S`` nodes take ``S`` calls of the network, unless a class says otherwise.

    Each image depends on its own z and its own noise only.
    """

    def __str__(self) -> str:
        return type(self).__name__

    def __call__(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """Images ``(B, ...)``: the expected image at the last node, which is a step of first order to ``sigma = 0``.

        ``z (B, ...)`` are draws from N(0, I), ``lams (S,)`` the increasing log-SNRs of a `Grid`. Only stochastic
        samplers call ``noise``.
        """
        with torch.no_grad():
            return denoise(self.solve(denoise, z.double(), lams, noise), lams[-1])

    @abstractmethod
    def solve(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """The state ``(B, ...)`` at the last node, for a state at the first."""


class DDIM(Sampler):
    """Song et al., "Denoising Diffusion Implicit Models", 2021, eq. 12 and 16.

    Args:
        eta: 0: deterministic, Euler's method in ``sigma / alpha``; 1: the ancestral sampler of DDPM and VDM, which
            draws from ``q(z_s | z_t, x = x_hat)``. The noise that is replaced in each step has variance
            ``eta^2 sigma_s^2 (1 - SNR_t / SNR_s)``.
    """

    @checked
    def __init__(self, eta: UnitInterval = 0.0) -> None:
        self.eta = eta

    def __str__(self) -> str:
        return f"DDIM (eta {self.eta:g})" if self.eta else "DDIM"

    def solve(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """Order 1."""
        for t, s in pairwise(lams):
            replaced = -(self.eta**2) * torch.expm1(t - s)  # share of the variance sigma_s^2
            z = toward(z, denoise(z, t), t, s, log_kept=0.5 * torch.log1p(-replaced))
            if self.eta > 0.0:
                z = z + sigma(s) * replaced.sqrt() * noise(tuple(z.shape)).to(z)
        return z


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1: Heun's method in ``sigma / alpha``. ``S`` nodes take ``2 S - 1`` calls."""

    def solve(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """Order 2: ``y_s = y_euler + (a_t / a_s - 1) / 2 (x_hat(y_euler, s) - x_hat(y, t))``."""
        for t, s in pairwise(lams):
            x_hat = denoise(z, t)
            euler = toward(z, x_hat, t, s)
            corrected = denoise(euler, torch.nextafter(s, t))  # if guidance begins or ends at s: as before it
            z = euler + alpha(s) * torch.expm1((s - t) / 2.0) / 2.0 * (corrected - x_hat)
        return z


class DPMSolverPlusPlus2M(Sampler):
    """Lu et al., "DPM-Solver++", 2022, algorithm 2: x_hat is extrapolated from the last two nodes."""

    def solve(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """Order 2; the first step is of order 1."""
        before, last = lams[0], None
        for t, s in pairwise(lams):
            x_hat = denoise(z, t)
            middle = x_hat if last is None else x_hat + (s - t) / (t - before) / 2.0 * (x_hat - last)
            z = toward(z, middle, t, s)
            before, last = t, x_hat
        return z


SAMPLERS: dict[str, Sampler] = {
    "ddim": DDIM(),
    "ancestral": DDIM(eta=1.0),
    "heun": Heun(),
    "dpmpp_2m": DPMSolverPlusPlus2M(),
}
"""Short names, for command lines."""
