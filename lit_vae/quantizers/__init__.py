"""Quantizers map the encoder's vectors to codes of a finite codebook, and back."""

from lit_vae.quantizers.base import Estimator, Quantized, Quantizer, RotationTrick, StraightThrough, update_codebooks
from lit_vae.quantizers.codebook import Codebook, EMACodebook, GradientCodebook
from lit_vae.quantizers.entropy import EntropyPenalty
from lit_vae.quantizers.lookup_free import FSQ, LFQ
from lit_vae.quantizers.projected import Projected
from lit_vae.quantizers.revival import KMeans, Revival
from lit_vae.quantizers.vector import VectorQuantizer

__all__ = [
    "FSQ",
    "LFQ",
    "Codebook",
    "EMACodebook",
    "EntropyPenalty",
    "Estimator",
    "GradientCodebook",
    "KMeans",
    "Projected",
    "Quantized",
    "Quantizer",
    "Revival",
    "RotationTrick",
    "StraightThrough",
    "VectorQuantizer",
    "update_codebooks",
]
