"""Base classes of callbacks that act every n epochs, and of measurements."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_vae.images import Batch, ImageSpec
from lit_vae.models.abilities import Ability
from lit_vae.models.base import Autoencoder
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, checked
from lit_vae.ranks import RankPositions
from lit_vae.run.needs import Need


class Periodic(Callback):
    """Acts at validations in every n-th epoch and in the last epoch, but not in the sanity check.

    It also acts at every validation outside of training.

    Args:
        every_n_epochs: n; None: at no validation. Take a multiple of ``trainer.check_val_every_n_epoch``.
    """

    accepts: type[Model] = Autoencoder  # type: ignore[type-abstract]
    """Base class of the models that it works with, such as one of `lit_vae.models.abilities`."""

    @checked
    def __init__(self, every_n_epochs: PositiveInt | None = 1) -> None:
        self.every_n_epochs = every_n_epochs
        self._loaded_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model of another kind, before training starts; ignore predictions."""
        self._loaded_step = None
        if stage == "predict":
            return
        if not isinstance(pl_module, self.accepts):
            remedy = f"Remove callbacks.{type(self).__name__} from trainer.callbacks"
            if issubclass(self.accepts, Ability) and isinstance(pl_module, Autoencoder):
                has = f"{type(pl_module).__name__} has {self.accepts.lacking}."
                raise self._refuse(has, f"{remedy}, or train {self.accepts.families}.")
            needed = f"{self.accepts.__module__}.{self.accepts.__name__}"
            raise self._refuse(f"it needs a {needed}, the model is a {type(pl_module).__name__}.", f"{remedy}.")
        self.check_model(pl_module)

    def check_model(self, model: Any) -> None:
        """Raise ValueError for a model that it cannot work with; by default it accepts all."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the checkpoint's step, which the trainer does not know outside of training."""
        self._loaded_step = checkpoint["global_step"]

    def due(self, trainer: Trainer) -> bool:
        """Whether to act at this validation."""
        if self.every_n_epochs is None or trainer.sanity_checking:
            return False
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch = trainer.current_epoch + 1
        at_the_end = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        return at_the_end or epoch % self.every_n_epochs == 0

    def step(self, trainer: Trainer) -> int:
        """Number of optimizer steps of the weights."""
        if trainer.state.fn == TrainerFn.FITTING or self._loaded_step is None:
            return trainer.global_step
        return self._loaded_step

    def _refuse(self, problem: str, remedy: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {problem} {remedy}")


class Measurement(Periodic, ABC):
    """Logs ``{val,test}/<name>`` at every test, and at the validations of `Periodic`.

    It sees the same batches as the model, with the weights of the validation. `compute` runs on every rank and returns
    the same numbers on each. Add a method ``numbers(model, data)`` that returns their names without the split: then
    they can be monitored, and are checked against the names of other callbacks (`lit_vae.run.callbacks`).
    """

    protocols: dict[str, dict[str, Any]] = {}  # noqa: RUF012  (replaced, never changed)
    """Protocol of each number beyond data and split, by name; saved in ``run.json`` and ``test_metrics.json``."""

    index: Tensor
    """In `update`: positions ``(B,)`` of the images of the batch in the split, over all ranks."""

    replicates: dict[str, list[float]] = {}  # noqa: RUF012  (replaced, never changed)
    """Of the numbers of the last evaluation, by name: see `lit_vae.intervals`."""

    @abstractmethod
    def start(self, trainer: Trainer, model: Any) -> None:
        """Reset; called before the first batch."""

    @abstractmethod
    def update(self, model: Any, batch: Batch) -> None:
        """Add a batch of this rank."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The numbers by name, over all ranks: ``()``, or ``(1 + G,)`` with those without each group of images."""

    def report(self, trainer: Trainer, split: str) -> None:
        """Draw pictures of the numbers just computed; by default none."""

    def _finish(self, trainer: Trainer, model: LightningModule, split: str) -> None:
        rows = {name: value.reshape(-1) for name, value in self.compute().items()}
        self.replicates = {name: row[1:].tolist() for name, row in rows.items()}
        values = {f"{split}/{name}": row[0].float() for name, row in rows.items()}
        # the values are equal on all ranks; sync_dist only avoids Lightning's warning
        model.log_dict(values, sync_dist=True)
        self.report(trainer, split)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `start`."""
        if self.due(trainer):
            self.on_test_epoch_start(trainer, pl_module)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """See `update`."""
        if self.due(trainer):
            self.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``val/<name>``."""
        if self.due(trainer):
            self._finish(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `start`."""
        self._positions = RankPositions()
        self.start(trainer, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """See `update`."""
        x, y = batch
        self.index = self._positions.indices(len(x), x.device)
        self.update(pl_module, Batch(x, y))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``test/<name>``."""
        self._finish(trainer, pl_module, "test")


class ReconstructionMeasurement(Measurement):
    """A measurement of reconstructions against their originals."""

    def needs(self, data: Any) -> Iterable[Need]:
        """Files that it needs."""
        return []

    @abstractmethod
    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """Names of what it logs, without the split."""

    @abstractmethod
    def compare(self, x_hat: Tensor, x: Tensor, index: Tensor) -> None:
        """Add images and their reconstructions, both ``(B, C, H, W)`` in [-1, 1]; ``index`` as in `Measurement`."""

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Compare a batch with its reconstructions."""
        self.compare(model.reconstruct(batch.x, batch.y), batch.x, self.index)


def data_spec(trainer: Trainer) -> ImageSpec | None:
    """The data module's `ImageSpec`; None without one."""
    return getattr(getattr(trainer, "datamodule", None), "spec", None)


@contextmanager
def untouched(model: Model) -> Iterator[None]:
    """Eval mode without gradients; restores the modes of all modules and torch's random states on exit."""
    modes = {module: module.training for module in model.modules()}
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
