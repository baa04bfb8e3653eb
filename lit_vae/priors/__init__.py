"""Priors ``p(z)`` and ``p(z | y)``. A prior also sets the shape of the latent."""

from lit_vae.priors.base import Prior
from lit_vae.priors.flow import FlowPrior
from lit_vae.priors.gaussian import ClassConditionalNormal, StandardNormal
from lit_vae.priors.mixtures import GaussianMixturePrior, VampPrior

__all__ = [
    "ClassConditionalNormal",
    "FlowPrior",
    "GaussianMixturePrior",
    "Prior",
    "StandardNormal",
    "VampPrior",
]
