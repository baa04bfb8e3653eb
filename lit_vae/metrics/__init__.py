"""Numbers over whole data sets, as torchmetrics: exact over batches of any size and over all ranks."""

from lit_vae.metrics.codes import CodeStatistics, CodeUsage, code_statistics
from lit_vae.metrics.frechet import FrechetDistance, PCAFeatures, frechet_distance
from lit_vae.metrics.image_quality import ImageQualityMetric, mse_per_image, psnr_per_image, ssim_per_image, ssim_window
from lit_vae.metrics.latents import (
    LatentSummary,
    PosteriorStatistics,
    active_units,
    log_aggregate_posterior,
    summarize_posteriors,
)

__all__ = [
    "CodeStatistics",
    "CodeUsage",
    "FrechetDistance",
    "ImageQualityMetric",
    "LatentSummary",
    "PCAFeatures",
    "PosteriorStatistics",
    "active_units",
    "code_statistics",
    "frechet_distance",
    "log_aggregate_posterior",
    "mse_per_image",
    "psnr_per_image",
    "ssim_per_image",
    "ssim_window",
    "summarize_posteriors",
]
