"""Metrics over whole data sets, as torchmetrics: exact for any batch size and any number of ranks."""

from lit_vae.metrics.code_usage import CodeUsage
from lit_vae.metrics.feature_sets import FeatureSet, FeatureStatistics
from lit_vae.metrics.frechet import frechet_distance, product_root_trace
from lit_vae.metrics.image_quality import (
    ImageQualityMetric,
    ms_ssim_per_image,
    mse_per_image,
    psnr_per_image,
    ssim_per_image,
    ssim_window,
)
from lit_vae.metrics.latent_channels import LatentChannels, LatentMoments
from lit_vae.metrics.latent_structure import LatentStructure, LatentStructureMetric, total_correlation
from lit_vae.metrics.latents import (
    LatentSummary,
    PosteriorStatistics,
    active_units,
    log_aggregate_posterior,
    summarize_posteriors,
)
from lit_vae.metrics.set_distances import DensityCoverage, Frechet, Kernel, PrecisionRecall, SetDistance
from lit_vae.metrics.sharpness import SharpnessMetric, high_frequency_energy, laplacian_variance
from lit_vae.metrics.spectrum import above_half_nyquist, cosine_basis, energy_by_frequency, mean_by_frequency
from lit_vae.metrics.split_mean import SplitMean

__all__ = [
    "CodeUsage",
    "DensityCoverage",
    "FeatureSet",
    "FeatureStatistics",
    "Frechet",
    "ImageQualityMetric",
    "Kernel",
    "LatentChannels",
    "LatentMoments",
    "LatentStructure",
    "LatentStructureMetric",
    "LatentSummary",
    "PosteriorStatistics",
    "PrecisionRecall",
    "SetDistance",
    "SharpnessMetric",
    "SplitMean",
    "above_half_nyquist",
    "active_units",
    "cosine_basis",
    "energy_by_frequency",
    "frechet_distance",
    "high_frequency_energy",
    "laplacian_variance",
    "log_aggregate_posterior",
    "mean_by_frequency",
    "ms_ssim_per_image",
    "mse_per_image",
    "product_root_trace",
    "psnr_per_image",
    "ssim_per_image",
    "ssim_window",
    "summarize_posteriors",
    "total_correlation",
]
