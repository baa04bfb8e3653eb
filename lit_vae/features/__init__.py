"""Features of images by frozen networks, and what is measured with them."""

from lit_vae.features.base import Frozen, PerceptualDistance
from lit_vae.features.feature_net import FeatureNetDistance, FeatureNetFeatures
from lit_vae.features.lpips import LPIPS

__all__ = ["LPIPS", "FeatureNetDistance", "FeatureNetFeatures", "Frozen", "PerceptualDistance"]
