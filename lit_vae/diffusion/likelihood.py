"""The likelihood of a diffusion model as a continuous normalizing flow.

In log-SNR the probability-flow ODE (Song et al., "Score-Based Generative Modeling through SDEs", 2021, eq. 13) is
``dz/dlam = alpha / 2 (x_hat - alpha z)``: nothing is divided, and for Gaussian data its slope is within [-1/2, 1/2].
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from lit_vae.diffusion.log_snr import alpha
from lit_vae.diffusion.samplers import Denoise, DrawNoise
from lit_vae.distributions import DiagonalGaussian
from lit_vae.ranges import SmallCount, checked


class ProbabilityFlow:
    """``log p(z)`` of states at the highest log-SNR, by the classical Runge-Kutta method of order 4.

    ``log p(z_max) = log N(z_min; 0, I) + integral of div(dz/dlam) from lam_max to lam_min`` (eq. 39). The grid is
    fixed, so an image's number depends on no other image. The number has the solver's error, and is not a bound.

    For continuous images x take ``z = alpha x`` and add ``D ln alpha``. For dequantised images, ``(u + U[0, 1)) / 128
    - 1``, bits per dimension are ``-log p(x) / (D ln 2) + 7``.

    Args:
        probes: random directions per image, the same throughout a solve, for an unbiased estimate of the divergence
            (Grathwohl et al., "FFJORD", 2019, sec. 3.1). None: all D directions; each call takes D backward passes.
    """

    @checked
    def __init__(self, probes: SmallCount | None = 1) -> None:
        self.probes = probes

    def __call__(self, denoise: Denoise, z: Tensor, lams: Tensor, noise: DrawNoise) -> Tensor:
        """Log-densities ``(B,)`` in nats of the states ``z (B, ...)`` at ``lams[-1]``; 4 (S - 1) calls of the network.

        The network must let gradients through and treat each image on its own. ``lams (S,)`` are increasing log-SNRs of
        a `Grid`: `UniformLogSNR` suits this ODE. ``noise`` is the source of the probes' signs.
        """
        with torch.no_grad():
            z = z.double()
            directions = self._directions(z, noise)
            change = z.new_zeros(len(z))
            for t, s in pairwise(lams.flip(0)):
                z, change = _runge_kutta(denoise, z, change, t, s, directions)
            return change + DiagonalGaussian(torch.zeros_like(z), torch.zeros_like(z), z.ndim - 1).log_prob(z)

    def _directions(self, z: Tensor, noise: DrawNoise) -> list[Tensor]:
        """Vectors v ``(B, ...)`` whose ``sum of v' J v`` is the trace of J, or has it as its mean."""
        if self.probes is None:
            one_hot = torch.eye(z[0].numel()).to(z)
            return [each.view_as(z[0]).expand_as(z) for each in one_hot]
        return [noise(tuple(z.shape)).to(z).sign() / math.sqrt(self.probes) for _ in range(self.probes)]


def _runge_kutta(
    denoise: Denoise, z: Tensor, change: Tensor, t: Tensor, s: Tensor, directions: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The state and the integral of the divergence at s."""
    h, middle = s - t, (t + s) / 2.0
    first = _rates(denoise, z, t, directions)
    second = _rates(denoise, z + h / 2.0 * first[0], middle, directions)
    third = _rates(denoise, z + h / 2.0 * second[0], middle, directions)
    fourth = _rates(denoise, z + h * third[0], s, directions)
    dz, divergence = (
        (a + 2.0 * b + 2.0 * c + d) / 6.0 for a, b, c, d in zip(first, second, third, fourth, strict=True)
    )
    return z + h * dz, change + h * divergence


def _rates(denoise: Denoise, z: Tensor, lam: Tensor, directions: list[Tensor]) -> tuple[Tensor, Tensor]:
    """``dz/dlam (B, ...)`` and its divergence ``(B,)``."""
    with torch.inference_mode(False), torch.enable_grad():
        state = z.clone().requires_grad_()
        x_hat = denoise(state, lam)
        products = [torch.autograd.grad(x_hat, state, each, retain_graph=True)[0] * each for each in directions]
    trace = torch.stack(products).sum(0).flatten(1).sum(1)
    signal = alpha(lam)
    return signal / 2.0 * (x_hat.detach() - signal * z), signal / 2.0 * (trace - signal * z[0].numel())
