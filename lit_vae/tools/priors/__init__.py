"""Priors for a trained autoencoder: ``lit-vae fit-prior`` (a mixture) and ``encode`` (codes to train a prior on)."""

from lit_vae.tools.priors.encoding import encode
from lit_vae.tools.priors.fit import fit_prior

__all__ = ["encode", "fit_prior"]
