"""Pictures of a trained model: ``lit-vae sample``, ``reconstruct``, ``interpolate`` and ``traverse``."""

from lit_vae.tools.pictures.reconstructions import interpolate, reconstruct, traverse
from lit_vae.tools.pictures.samples import sample

__all__ = ["interpolate", "reconstruct", "sample", "traverse"]
