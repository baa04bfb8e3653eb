"""Families: thin LightningModules, one file each."""

from lit_vae.models.ae import AE
from lit_vae.models.cvae import CVAE
from lit_vae.models.pca import PCA
from lit_vae.models.vae import VAE

__all__ = ["AE", "CVAE", "PCA", "VAE"]
