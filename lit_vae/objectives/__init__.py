"""Objectives: bounds of log p(x) in nats per image (`bounds`), adversarial losses of logits (`adversarial`),
and a penalty of weights (`spectral`).
"""

from lit_vae.objectives.adversarial import AdversarialLoss, Hinge, LeastSquares, NonSaturating
from lit_vae.objectives.balance import KLBalance
from lit_vae.objectives.bounds import ELBO, IWAE, DReG, Objective
from lit_vae.objectives.free_bits import FreeBits, FreeBitsPerLevel
from lit_vae.objectives.level import Level
from lit_vae.objectives.spectral import SpectralPenalty
from lit_vae.objectives.step import Step

__all__ = [
    "ELBO",
    "IWAE",
    "AdversarialLoss",
    "DReG",
    "FreeBits",
    "FreeBitsPerLevel",
    "Hinge",
    "KLBalance",
    "LeastSquares",
    "Level",
    "NonSaturating",
    "Objective",
    "SpectralPenalty",
    "Step",
]
