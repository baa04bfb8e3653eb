"""Mean and standard deviation of the latents, which a diffusion model on them needs."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.panel import posterior_of
from callbacks.periodic import Measurement
from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.metrics.latent_channels import LatentChannels, LatentMoments
from lit_vae.models.base import Autoencoder

KEY = "latent_report"


class LatentReport(Measurement):
    """Logs ``latent_std`` of all values, ``latent_std_min`` and ``latent_std_max`` over channels, for val and test.

    They are for draws from the posterior (in closed form), or for the latents of a model without a posterior; see
    `lit_vae.metrics.LatentChannels`. Every checkpoint holds the report of the last validation as ``latent_report``:
    mean and std of each channel, ``shift_factor`` and ``scale_factor``, split, number of images and step. With
    `callbacks.EMA` they are for the averaged weights, as in the checkpoint.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only, without a report in checkpoints.
    """

    saved: dict[str, Any] | None = None

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """Three."""
        return ["latent_std", "latent_std_min", "latent_std_max"]

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new moments."""
        self.metric = LatentChannels().to(model.device)

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Add the latents of a batch."""
        self.metric.update(latents_of(model, batch))

    def compute(self) -> dict[str, Tensor]:
        """The three standard deviations."""
        self.moments: LatentMoments = self.metric.compute()
        std = self.moments.std
        return {"latent_std": self.moments.total_std, "latent_std_min": std.min(), "latent_std_max": std.max()}

    def report(self, trainer: Trainer, split: str) -> None:
        """Keep the report of a validation for the checkpoints."""
        if split == "val":
            self.saved = {**self.moments.report(), "split": split, "step": self.step(trainer)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the last report."""
        if self.saved is not None:
            checkpoint[KEY] = self.saved

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the report."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self.saved = checkpoint.get(KEY)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the report."""
        if self.saved is not None and trainer.is_global_zero:
            print(in_one_line(self.saved))


def latents_of(model: Autoencoder, batch: Batch) -> DiagonalGaussian | Tensor:
    """Posteriors of a batch, or latents for a model without Gaussian posteriors."""
    return posterior_of(model, batch) or model.embed(*batch)


def in_one_line(report: Mapping[str, Any]) -> str:
    """A report in one line of text."""
    std = report["std"]
    return (
        f"latents: scale_factor {report['scale_factor']:.5f}, shift_factor {report['shift_factor']:.5f}, std of the"
        f" {len(std)} channels {min(std):.3g} to {max(std):.3g} (step {report['step']}, {report['num_images']}"
        f" {report['split']} images)"
    )
