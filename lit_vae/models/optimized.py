"""A LightningModule whose optimizer and learning-rate schedule are settings."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_vae.factories import Factory


class Optimized(LightningModule):
    """A LightningModule with one optimizer and, optionally, a learning-rate schedule.

    Args:
        optimizer: ``parameters -> optimizer``.
        lr_scheduler: ``optimizer -> scheduler``, stepped with every optimizer step; None: a constant learning rate.
    """

    def __init__(self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None) -> None:
        super().__init__()
        self._optimizer = Factory(optimizer)
        self._lr_scheduler = None if lr_scheduler is None else Factory(lr_scheduler)

    def parameter_groups(self) -> Any:
        """Parameters for the optimizer: by default all, in one group."""
        return self.parameters()

    def configure_optimizers(self) -> Any:
        """The optimizer, and a scheduler that steps with every optimizer step.

        A `ReduceLROnPlateau` steps with every validation instead (`on_validation_epoch_end`).

        Raises:
            ValueError: a `ReduceLROnPlateau` without ``monitor``.
        """
        optimizer = self._optimizer(self.parameter_groups())
        if self._lr_scheduler is None:
            return optimizer
        scheduler = self._lr_scheduler(optimizer)
        if not isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        if not hasattr(scheduler, "monitor"):
            raise ValueError(
                f"{type(self).__name__}: torch.optim.lr_scheduler.ReduceLROnPlateau is not told which number to watch."
                " Take class_path: lightning.pytorch.cli.ReduceLROnPlateau with init_args: {monitor: val/loss} as"
                " model.init_args.lr_scheduler."
            )
        # Lightning would step it at the end of an epoch, after the checkpoint is written, and skip it in a resumed one
        of_lightning = {"scheduler": scheduler, "interval": "epoch", "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": of_lightning}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler, unless it is a `ReduceLROnPlateau`."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)

    def _step_plateau_schedulers(self) -> None:
        """Step each `ReduceLROnPlateau` with its monitored number, before a checkpoint is written."""
        for config in self.trainer.lr_scheduler_configs if self.trainer.state.fn == TrainerFn.FITTING else ():
            if isinstance(config.scheduler, ReduceLROnPlateau) and not self.trainer.sanity_checking:
                name: str = config.scheduler.monitor  # type: ignore[attr-defined]
                if name not in self.trainer.callback_metrics:
                    raise MisconfigurationException(
                        f"ReduceLROnPlateau: monitor (={name!r}) is not among the numbers of this validation,"
                        f" {', '.join(sorted(self.trainer.callback_metrics))}. Set"
                        " model.init_args.lr_scheduler.init_args.monitor."
                    )
                config.scheduler.step(self.trainer.callback_metrics[name])
