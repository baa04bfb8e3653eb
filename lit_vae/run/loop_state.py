"""What an epoch's end is decided by, and Lightning's checkpoints lack."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info


class LoopState(Callback):
    """Saves the numbers that callbacks look at, and gives them back: a resumed run then decides as it would have.

    A checkpoint is written after a validation, before the end of its epoch, where `EarlyStopping` and others look at
    ``trainer.callback_metrics``: without this they would find nothing there. A run that was stopped early does not
    train on when it is resumed. Also refuses an optimizer of another class, which would take up foreign state. To be
    listed before callbacks that copy the model.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, torch.Tensor] = {}
        self._optimizers: list[str] | None = None
        self._epoch_end_is_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the weights their precision before a checkpoint is loaded into them: of float64 half would be lost."""
        trainer.precision_plugin.convert_module(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the numbers; on every rank, since reading them may reduce what is not yet reduced."""
        metrics = trainer.callback_metrics.items()
        checkpoint["callback_metrics"] = {
            name: torch.as_tensor(value).detach().cpu().clone() for name, value in metrics
        }
        checkpoint["optimizers"] = _class_names(trainer)
        # of an epoch without a validation; Lightning resumes with the next epoch and leaves the end of this one out
        checkpoint["epoch_end_is_due"] = bool(trainer.training and trainer.is_last_batch)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember what is to be given back.

        Raises:
            ValueError: the checkpoint holds weights, and no state of an optimizer.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if "optimizer_states" not in checkpoint:
            raise ValueError(
                f"--ckpt_path {trainer.ckpt_path} holds weights alone, and no training goes on from these. Start a new"
                " one from them: leave --ckpt_path out and list callbacks.StartFrom in trainer.callbacks, with the"
                " file as init_args.path."
            )
        self._metrics = dict(checkpoint.get("callback_metrics", {}))
        self._optimizers = checkpoint.get("optimizers")
        self._epoch_end_is_due = checkpoint.get("epoch_end_is_due", False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse another optimizer before its state is loaded; stay stopped.

        Raises:
            ValueError: the checkpoint is of an optimizer of another class.
        """
        now = _class_names(trainer)
        if self._optimizers is not None and self._optimizers != now:
            raise ValueError(
                f"model.init_args.optimizer (={', '.join(now)}) cannot go on with the state of"
                f" {', '.join(self._optimizers)}, which the checkpoint holds. Set the class_path that the run was"
                " trained with; or start a new run from its weights: leave --ckpt_path out and list"
                f" callbacks.StartFrom in trainer.callbacks, with init_args.path {trainer.ckpt_path}."
            )
        for callback in trainer.callbacks if self._optimizers is not None else ():  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
                trainer.should_stop = True
                rank_zero_info(
                    f"EarlyStopping had stopped this run in epoch {callback.stopped_epoch + 1}. To train on, remove it"
                    " from trainer.callbacks."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the numbers back, once nothing resets them any more, and decide what was still to be decided by them."""
        for name, value in self._metrics.items():
            trainer.callback_metrics[name] = value.to(pl_module.device)
        self._metrics = {}
        for callback in trainer.callbacks if self._epoch_end_is_due else ():  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                callback.on_train_epoch_end(trainer, pl_module)
        self._epoch_end_is_due = False


def _class_names(trainer: Trainer) -> list[str]:
    return [type(optimizer).__name__ for optimizer in trainer.optimizers]
