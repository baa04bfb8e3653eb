"""Distributions over latents and images, as plain tensors with the mathematics written out.

Every ``log_prob`` and ``kl`` is in **nats**, *summed* over the event (all dimensions of one latent or image) and never
reduced over anything else: parameters of shape ``(..., *event)`` and a value that broadcasts against them give
``(...)``. So ``L`` posterior samples of a batch are parameters ``(L, B, C, H, W)`` against ``x (B, C, H, W)``, and the
result is ``(L, B)``; ``x`` is not copied ``L`` times.

Images are in [-1, 1] (`lit_vae.images`). Sampling takes a `torch.Generator` so that drawing a picture need not touch
the random state of training; without one, the global generator is used. A posterior's samples take their noise from
`lit_vae.noise`, which knows of no ranks.
"""

from lit_vae.distributions.continuous import (
    LOG_2PI,
    LOG_SCALES,
    DiagonalGaussian,
    Distribution,
    Laplace,
    standard_normal,
)
from lit_vae.distributions.discrete import Bernoulli, Categorical, DiscretizedLogisticMixture

__all__ = [
    "LOG_2PI",
    "LOG_SCALES",
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "DiscretizedLogisticMixture",
    "Distribution",
    "Laplace",
    "standard_normal",
]
