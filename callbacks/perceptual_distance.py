"""Perceptual distance between reconstructions and originals."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.periodic import ReconstructionMeasurement
from lit_vae import features
from lit_vae.metrics import SplitMean
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import PositiveInt, checked
from lit_vae.run.needs import Need


class PerceptualDistance(ReconstructionMeasurement):
    """Logs ``{val,test}/<name>`` of reconstructions, such as ``lpips_alex``: the exact mean over images and ranks.

    Args:
        distance: a distance between images, from `lit_vae.features`.
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    @checked
    def __init__(self, distance: features.PerceptualDistance, every_n_epochs: PositiveInt | None = 1) -> None:
        super().__init__(every_n_epochs)
        self.distance = distance

    def needs(self, data: Any) -> Iterable[Need]:
        """Files that the distance needs."""
        return self.distance.needs()

    def check_model(self, model: Autoencoder) -> None:
        """Refuse missing weights, or images that do not fit the network."""
        if problems := self.distance.problems(model.image_shape):
            raise self._refuse("\n".join(problems), "Or remove it from trainer.callbacks.")

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """One."""
        return [self.distance.name]

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start a new mean."""
        self.distance.to(model.device)
        self.mean = SplitMean().to(model.device)

    def compare(self, x_hat: Tensor, x: Tensor, index: Tensor) -> None:
        """Add to the mean."""
        self.mean.update(self.distance(x, x_hat), len(x), index)

    def compute(self) -> dict[str, Tensor]:
        """The mean."""
        self.protocols = {self.distance.name: self.distance.provenance()}
        return {self.distance.name: self.mean.estimates()}
