"""Measurements of a trained model: ``lit-vae evaluate`` (samples) and ``lit-vae latents``."""

from lit_vae.tools.measure.distances import evaluate
from lit_vae.tools.measure.latent_moments import latents

__all__ = ["evaluate", "latents"]
