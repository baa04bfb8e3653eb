"""Measurements of draws from p(x|z), which a VAE's images are; its usual pictures show the mean of each pixel."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.periodic import Measurement, ReconstructionMeasurement
from lit_vae.images import Batch
from lit_vae.models.base import Autoencoder
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import PositiveInt, Seed, checked
from lit_vae.run.needs import Need


class DrawnReconstructions(Measurement):
    """Logs ``{val,test}/<name>_drawn``: measurements of reconstructions, repeated on a draw from p(x|z) of each image.

    The draw is from `Autoencoder.reconstruction`, whose mean is the usual reconstruction. So the two numbers differ by
    the noise of the likelihood alone. An image has the same noise at any time, in any batch and on any rank.
    ``lit-vae compare RUN@drawn`` shows draws and these numbers.

    Args:
        measurements: what to repeat, such as `callbacks.ImageQuality`.
        every_n_epochs: see `Periodic`; null: in tests only. It counts instead of that of the measurements.
        seed: seed of the noise.
    """

    @checked
    def __init__(
        self,
        measurements: list[ReconstructionMeasurement],
        every_n_epochs: PositiveInt | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        if not measurements:
            raise self._refuse("measurements is empty.", "Give some, such as callbacks.ImageQuality.")
        self.measurements = measurements
        self.seed = seed

    def needs(self, data: Any) -> Iterable[Need]:
        """Files that the measurements need."""
        for measurement in self.measurements:
            yield from measurement.needs(data)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let each measurement refuse what it cannot measure, before training starts."""
        super().setup(trainer, pl_module, stage)
        for measurement in self.measurements:
            measurement.setup(trainer, pl_module, stage)

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """Those of the measurements."""
        names = chain.from_iterable(measurement.numbers(model, data) for measurement in self.measurements)
        return list(_drawn(dict.fromkeys(names)))

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start all of them."""
        for measurement in self.measurements:
            measurement.start(trainer, model)

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Compare a batch with one draw of each image."""
        noise = Draws(self.seed, FIXED, self.index)
        x_hat = model.reconstruction(batch.x, batch.y).sample(noise).clamp(-1.0, 1.0)
        for measurement in self.measurements:
            measurement.compare(x_hat, batch.x, self.index)

    def compute(self) -> dict[str, Tensor]:
        """All numbers."""
        found: dict[str, Tensor] = {}
        self.protocols = {}
        for measurement in self.measurements:
            found |= _drawn(measurement.compute())
            self.protocols |= _drawn(measurement.protocols)
        return found


def _drawn(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_drawn": value for name, value in values.items()}
