"""How near reconstructions are to their originals."""

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.periodic import Measurement
from lit_vae.images import Batch
from lit_vae.metrics.image_quality import ImageQualityMetric
from lit_vae.models.base import Autoencoder


class ImageQuality(Measurement):
    """Logs ``{val,test}/mse``, ``psnr`` (dB) and ``ssim`` of reconstructions: exact means over images and ranks.

    ``psnr`` is the mean of the images' PSNRs. Images too small for SSIM's window of 11 x 11 pixels have
    ``ssim_uniform7`` instead, and below 7 pixels none; see `lit_vae.metrics.image_quality`.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    def __init__(self, every_n_epochs: int | None = 1) -> None:
        super().__init__(every_n_epochs)

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new means."""
        self.metric = ImageQualityMetric(*model.image_shape[1:]).to(model.device)

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Reconstruct."""
        self.metric.update(model.reconstruct(batch.x, batch.y), batch.x)

    def compute(self) -> dict[str, Tensor]:
        """The means."""
        return self.metric.compute()
