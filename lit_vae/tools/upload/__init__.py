"""``lit-vae sync``: upload runs to Weights & Biases."""

from lit_vae.tools.upload.verb import sync

__all__ = ["sync"]
