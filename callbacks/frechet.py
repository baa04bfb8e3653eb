"""How far the set of all reconstructions is from the set of their originals."""

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.periodic import Measurement
from lit_vae.features import FeatureNetFeatures
from lit_vae.images import Batch
from lit_vae.metrics.frechet import FrechetDistance
from lit_vae.models.base import Autoencoder


class ReconstructionFrechet(Measurement):
    """Logs ``{val,test}/rfd_<features>``: the Fréchet distance of reconstructions to the very images that they are of.

    It falls with the number of images, so compare equal sets. With a FeatureNet it is ``rfd_featurenet``: on no scale
    but that of its checkpoint, and never an rFID.

    Args:
        features: of an image.
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    def __init__(self, features: FeatureNetFeatures, every_n_epochs: int | None = 1) -> None:
        super().__init__(every_n_epochs)
        self.features = features

    def check_model(self, model: Autoencoder) -> None:
        """A checkpoint that is missing, or images that cannot be measured."""
        if problems := self.features.problems(model.image_shape):
            raise self._refuse("\n".join(problems), "Or remove it from trainer.callbacks.")

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new sums."""
        self.metric = FrechetDistance(self.features).to(model.device)

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Reconstruct."""
        self.metric.update(batch.x, real=True)
        self.metric.update(model.reconstruct(batch.x, batch.y), real=False)

    def compute(self) -> dict[str, Tensor]:
        """The distance."""
        return {f"rfd_{self.features.name}": self.metric.compute()}
