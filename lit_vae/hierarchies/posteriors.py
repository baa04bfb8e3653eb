"""What q(z_l | z_<l, x) is, given what a network says of it and p(z_l | z_<l)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian

MOST = 5.0
"""A network's log standard deviations are ``5 tanh(t / 5)``, as in NVAE's code: from 0.0067 to 148.

The bound is part of the distributions, so samples and KLs agree. At t = 0 the deviation is exactly 1.
"""


def gaussian(parameters: Tensor, event_ndim: int) -> DiagonalGaussian:
    """The Gaussian of a network's output ``(..., 2 C, *grid)``: means, then unbounded log standard deviations."""
    mean, raw = parameters.chunk(2, -event_ndim)
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    return DiagonalGaussian(mean, 2.0 * MOST * torch.tanh(raw / MOST), event_ndim)


class LevelPosterior(ABC):
    """From a Gaussian message of the image, and the prior given the latents above, to the posterior."""

    needs_prior: bool = True
    """Whether it depends on the prior, which a bottom-up wiring does not know yet."""

    @abstractmethod
    def __call__(self, message: DiagonalGaussian, prior: DiagonalGaussian) -> DiagonalGaussian:
        """``q(z_l | z_<l, x)``, in the shape of both."""


class Absolute(LevelPosterior):
    """The message itself, as in VDVAE (Child 2021)."""

    needs_prior = False

    def __call__(self, message: DiagonalGaussian, prior: DiagonalGaussian) -> DiagonalGaussian:
        """``q = message``."""
        return message


class LadderMerge(LevelPosterior):
    """The normalised product of message and prior: precisions add up and weight the means.

    It is the exact posterior if the message is proportional to the likelihood of z_l.
    Sonderby et al., "Ladder Variational Autoencoders", 2016, eq. 17 to 19: ``v = 1 / (1 / v_m + 1 / v_p)``.
    """

    def __call__(self, message: DiagonalGaussian, prior: DiagonalGaussian) -> DiagonalGaussian:
        """``q`` proportional to ``message * prior``."""
        share = torch.sigmoid(prior.log_var - message.log_var)  # of the message: v / v_m
        mean = prior.mean + share * (message.mean - prior.mean)
        return DiagonalGaussian(mean, -torch.logaddexp(-message.log_var, -prior.log_var), prior.event_ndim)


class ResidualNormal(LevelPosterior):
    """The message is relative to the prior (Vahdat and Kautz, "NVAE", 2020, sec. 3.2).

    ``q = N(mean_p + mean_m, (std_p std_m)^2)``. If the prior moves, the posterior moves with it.
    """

    def __call__(self, message: DiagonalGaussian, prior: DiagonalGaussian) -> DiagonalGaussian:
        """``KL(q || p) = 1/2 sum(mean_m^2 / var_p + var_m - log var_m - 1)``, eq. 2."""
        return DiagonalGaussian(prior.mean + message.mean, prior.log_var + message.log_var, prior.event_ndim)
