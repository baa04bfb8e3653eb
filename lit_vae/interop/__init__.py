"""Weights of autoencoders from and to other libraries: diffusers, and CompVis (latent-diffusion, taming-transformers).

The networks are equal (`lit_vae.networks.ldm`); only names of weights differ and, in attention, shapes.
"""

from lit_vae.interop.architecture import Architecture
from lit_vae.interop.reading import Imported, load_into, read_autoencoder
from lit_vae.interop.writing import export_diffusers

__all__ = ["Architecture", "Imported", "export_diffusers", "load_into", "read_autoencoder"]
