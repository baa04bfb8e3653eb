"""When a callback acts, which step its pictures belong to, and how it looks at a model without leaving a trace."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_vae.images import Batch, ImageSpec
from lit_vae.models.base import Autoencoder
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, checked


class Periodic(Callback):
    """Acts at the validations of every n-th epoch and of the last one; never in the sanity check.

    A ``lightning validate`` outside training always counts.

    Args:
        every_n_epochs: n; None: at no validation. Take a multiple of ``trainer.check_val_every_n_epoch``.
    """

    accepts: type[Model] = Autoencoder  # type: ignore[type-abstract]
    """Models that it works with."""

    @checked
    def __init__(self, every_n_epochs: PositiveInt | None) -> None:
        self.every_n_epochs = every_n_epochs
        self._loaded_step: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model of another kind, before training starts; a prediction it has no part in."""
        self._loaded_step = None
        if stage == "predict":
            return
        if not isinstance(pl_module, self.accepts):
            raise ValueError(
                f"{type(self).__name__}: it needs a {self.accepts.__module__}.{self.accepts.__name__}, the model is a"
                f" {type(pl_module).__name__}. Remove callbacks.{type(self).__name__} from trainer.callbacks."
            )
        self.check_model(pl_module)

    def check_model(self, model: Any) -> None:
        """Raise ValueError for a model that it cannot work with; by default there is none."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the checkpoint's step: outside training the trainer itself does not know it."""
        self._loaded_step = checkpoint["global_step"]

    def due(self, trainer: Trainer) -> bool:
        """Whether this validation is one to act at."""
        if self.every_n_epochs is None or trainer.sanity_checking:
            return False
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        epoch = trainer.current_epoch + 1
        at_the_end = epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        return at_the_end or epoch % self.every_n_epochs == 0

    def step(self, trainer: Trainer) -> int:
        """Optimizer steps that the weights have seen."""
        if trainer.state.fn == TrainerFn.FITTING or self._loaded_step is None:
            return trainer.global_step
        return self._loaded_step

    def _refuse(self, problem: str, remedy: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {problem} {remedy}")


class Measurement(Periodic, ABC):
    """Logs ``{val,test}/<name>``: at every test, and at the validations that `Periodic` names.

    It sees the batches that the model sees, with the weights that the model is validated with. `compute` runs on every
    rank and returns the same numbers there. One that also has a method ``numbers(model, data)``, their names without
    the split, can be monitored, and is compared with what others log (`lit_vae.run.callbacks`).
    """

    protocols: dict[str, dict[str, Any]] = {}  # noqa: RUF012  (replaced, never changed)
    """By name, what a number is of beyond data and split; kept beside it in ``run.json`` and ``test_metrics.json``."""

    @abstractmethod
    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Forget everything; called before the first batch."""

    @abstractmethod
    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Take in a batch of this rank."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The numbers by name, over all ranks."""

    def report(self, trainer: Trainer, split: str) -> None:
        """Draw what belongs to the numbers just computed; by default nothing."""

    def _finish(self, trainer: Trainer, model: LightningModule, split: str) -> None:
        values = {f"{split}/{name}": value.float() for name, value in self.compute().items()}
        # all ranks hold the same numbers; the mean that sync_dist takes of them changes nothing
        model.log_dict(values, sync_dist=True)
        self.report(trainer, split)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `start`."""
        if self.due(trainer):
            self.start(trainer, _autoencoder(pl_module))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See `update`."""
        if self.due(trainer):
            self.update(_autoencoder(pl_module), Batch(*batch))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``val/<name>``."""
        if self.due(trainer):
            self._finish(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `start`."""
        self.start(trainer, _autoencoder(pl_module))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """See `update`."""
        self.update(_autoencoder(pl_module), Batch(*batch))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``test/<name>``."""
        self._finish(trainer, pl_module, "test")


def data_spec(trainer: Trainer) -> ImageSpec | None:
    """What the data module says of its images; None without one."""
    return getattr(getattr(trainer, "datamodule", None), "spec", None)


@contextmanager
def untouched(model: Model) -> Iterator[None]:
    """Eval mode without gradients; on leaving, every module's mode and torch's random states are what they were."""
    modes = {module: module.training for module in model.modules()}
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _autoencoder(model: LightningModule) -> Autoencoder:
    assert isinstance(model, Autoencoder)  # by `Periodic.setup`
    return model
