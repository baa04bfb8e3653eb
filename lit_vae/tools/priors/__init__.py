"""Priors for a trained autoencoder: ``lit-vae fit-prior``; and ``encode`` for priors of codes."""

from lit_vae.tools.priors.encoding import encode
from lit_vae.tools.priors.fit import fit_prior

__all__ = ["encode", "fit_prior"]
