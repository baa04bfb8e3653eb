"""Error, similarity and sharpness of reconstructions."""

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.periodic import ReconstructionMeasurement
from lit_vae.metrics.image_quality import ImageQualityMetric
from lit_vae.metrics.sharpness import SMALLEST_SIZE, SharpnessMetric
from lit_vae.models.base import Autoencoder


class ImageQuality(ReconstructionMeasurement):
    """Logs ``{val,test}/mse``, ``psnr`` (dB) and ``ssim`` of reconstructions: exact means over images and ranks.

    ``psnr`` is the mean over the PSNRs of the images. Images smaller than the 11 x 11 pixels of SSIM's window get
    ``ssim_uniform7`` instead, and below 7 pixels neither. Images of at least 176 pixels also get ``ms_ssim``. See
    `lit_vae.metrics.image_quality`.

    Also logs ``sharpness`` and ``laplacian_ratio``, the fine structure of reconstructions relative to their originals:
    1 is equally sharp; see `lit_vae.metrics.sharpness`.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """Depends on the size of the images."""
        return [name for metric in self._new(model) for name in metric.names]

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new means."""
        self.metrics = [metric.to(model.device) for metric in self._new(model)]

    def _new(self, model: Autoencoder) -> list[ImageQualityMetric | SharpnessMetric]:
        height, width = model.image_shape[1:]
        sharp = [SharpnessMetric()] if min(height, width) >= SMALLEST_SIZE else []
        return [ImageQualityMetric(height, width), *sharp]

    def compare(self, x_hat: Tensor, x: Tensor, index: Tensor) -> None:
        """Add to the means."""
        for metric in self.metrics:
            metric.update(x_hat, x, index)

    def compute(self) -> dict[str, Tensor]:
        """The means and the ratios."""
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}
