"""Families: thin LightningModules, one file each."""

from lit_vae.models.ae import AE
from lit_vae.models.code_prior import CodePrior
from lit_vae.models.cvae import CVAE
from lit_vae.models.equivariant_vae import EquivariantVAE
from lit_vae.models.feature_net import FeatureNet
from lit_vae.models.hierarchical_pixelvae import HierarchicalPixelVAE
from lit_vae.models.hierarchical_vae import HierarchicalVAE
from lit_vae.models.kl_autoencoder import KLAutoencoder
from lit_vae.models.latent_diffusion import LatentDiffusion
from lit_vae.models.pca import PCA
from lit_vae.models.pixelcnn import PixelCNN
from lit_vae.models.pixelvae import PixelVAE
from lit_vae.models.vae import VAE
from lit_vae.models.variational_diffusion import VariationalDiffusion
from lit_vae.models.vqvae import VQVAE
from lit_vae.models.vqvae2 import VQVAE2

__all__ = [
    "AE",
    "CVAE",
    "PCA",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "CodePrior",
    "EquivariantVAE",
    "FeatureNet",
    "HierarchicalPixelVAE",
    "HierarchicalVAE",
    "KLAutoencoder",
    "LatentDiffusion",
    "PixelCNN",
    "PixelVAE",
    "VariationalDiffusion",
]
