"""Distributions over latents and images, in plain tensors.

Every ``log_prob`` and ``kl`` is in **nats** and *summed* over the event (all dimensions of one latent or image), but
over nothing else. Parameters of shape ``(..., *event)`` and a value that broadcasts against them give ``(...)``. For L
posterior samples, parameters ``(L, B, C, H, W)`` and images ``x (B, C, H, W)`` give ``(L, B)`` without copies of ``x``.

Images are in [-1, 1] (`lit_vae.images`). Pass a `torch.Generator` to draw samples without changing the random state of
training; by default the global generator is used. Posterior samples use the noise of `lit_vae.noise`, which does not
depend on the number of ranks.
"""

from lit_vae.distributions.continuous import (
    LOG_2PI,
    LOG_SCALES,
    DiagonalGaussian,
    Distribution,
    Laplace,
    LatentDistribution,
    NoiseSource,
    Reparametrised,
    standard_normal,
)
from lit_vae.distributions.discrete import Bernoulli, Categorical, DiscretizedLogisticMixture, GaussianLevels
from lit_vae.distributions.flowed import FlowedGaussian
from lit_vae.distributions.mixtures import GaussianMixture

__all__ = [
    "LOG_2PI",
    "LOG_SCALES",
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "Distribution",
    "FlowedGaussian",
    "GaussianLevels",
    "GaussianMixture",
    "Laplace",
    "LatentDistribution",
    "NoiseSource",
    "Reparametrised",
    "standard_normal",
]
