"""Realism: perceptual and adversarial loss terms that autoencoder families can switch on."""

from lit_vae.realism.augment import Augmentation, Color, Cutout, Translation
from lit_vae.realism.penalties import R1, LeCAM, Penalty
from lit_vae.realism.terms import Adversary, Perceptual, Realism

__all__ = [
    "R1",
    "Adversary",
    "Augmentation",
    "Color",
    "Cutout",
    "LeCAM",
    "Penalty",
    "Perceptual",
    "Realism",
    "Translation",
]
