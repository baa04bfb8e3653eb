"""Features of images from frozen networks, and distances between them."""

from lit_vae.features.base import Frozen, ImageFeatures, PerceptualDistance
from lit_vae.features.classifier import FeatureNetDistance, FeatureNetFeatures
from lit_vae.features.inception import Inception
from lit_vae.features.lpips import LPIPS
from lit_vae.features.pca import PCAFeatures

__all__ = [
    "LPIPS",
    "FeatureNetDistance",
    "FeatureNetFeatures",
    "Frozen",
    "ImageFeatures",
    "Inception",
    "PCAFeatures",
    "PerceptualDistance",
]
