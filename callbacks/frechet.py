"""Fréchet distance between reconstructions and originals."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.periodic import ReconstructionMeasurement, data_spec
from lit_vae.features import ImageFeatures
from lit_vae.metrics import FeatureStatistics, frechet_distance
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import PositiveInt, checked
from lit_vae.run.needs import Need


class ReconstructionFrechet(ReconstructionMeasurement):
    """Logs the Fréchet distance between reconstructions and their originals: ``{val,test}/rfid``.

    With `lit_vae.features.Inception` it is ``rfid``. With the features of your own classifier it is
    ``rfd_featurenet``; compare it only between runs with the same checkpoint of the classifier. The distance falls with
    the number of images: compare equal sets, and never with a FID of samples.

    Args:
        features: features of an image, from `lit_vae.features`.
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    @checked
    def __init__(self, features: ImageFeatures, every_n_epochs: PositiveInt | None = 1) -> None:
        super().__init__(every_n_epochs)
        self.features = features

    def needs(self, data: Any) -> Iterable[Need]:
        """Files that the features need."""
        return self.features.needs()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a precision that changes the images, before training starts."""
        super().setup(trainer, pl_module, stage)
        spec = data_spec(trainer)
        half = str(trainer.precision) in ("bf16-true", "16-true")
        if half and spec is not None and spec.values == "dequantized":
            raise self._refuse(
                f"trainer.precision (={trainer.precision}) rounds dequantised images to other levels.",
                "Set trainer.precision: bf16-mixed, or remove it from trainer.callbacks.",
            )

    def check_model(self, model: Autoencoder) -> None:
        """Refuse missing weights, or images that do not fit the features."""
        if problems := self.features.problems(model.image_shape):
            raise self._refuse("\n".join(problems), "Or remove it from trainer.callbacks.")

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """One."""
        return [self.features.called("rfd")]

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new sums."""
        self.features.to(model.device)
        spec = data_spec(trainer)
        self.values = "uint8" if spec is None else spec.values
        self.real, self.fake = (FeatureStatistics(self.features.num_features).to(model.device) for _ in range(2))

    def compare(self, x_hat: Tensor, x: Tensor, index: Tensor) -> None:
        """Add their features."""
        self.real.update(self.features.of(x, self.values), index)
        self.fake.update(self.features.of(x_hat, self.values), index)

    def compute(self) -> dict[str, Tensor]:
        """The distance."""
        real, fake = self.real.compute(), self.fake.compute()
        name = self.features.called("rfd")
        provenance = {"num_images": real.num_images, "reference": "the same images", **self.features.provenance()}
        self.protocols = {name: provenance}
        sets = [(real, fake), *zip(real.without_each, fake.without_each, strict=True)]
        return {name: torch.stack([frechet_distance(*pair) for pair in sets])}
