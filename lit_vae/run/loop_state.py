"""The state that decides about the end of an epoch, which Lightning's checkpoints lack."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info


class LoopState(Callback):
    """Saves the metrics that callbacks monitor, and restores them, so that a resumed run takes the same decisions.

    A checkpoint is written after a validation, before the end of the epoch. There `EarlyStopping` and others read
    ``trainer.callback_metrics``, which would be empty in a resumed run. A run that was stopped early stays stopped. An
    optimizer of another class is refused, since it would load a foreign state. List it before callbacks that copy the
    model.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, torch.Tensor] = {}
        self._optimizers: list[str] | None = None
        self._epoch_end_is_due = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Convert the model to its precision before a checkpoint is loaded: float64 weights would be cut to float32."""
        trainer.precision_plugin.convert_module(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the metrics. Every rank must call it: reading a metric may reduce it over the ranks."""
        metrics = trainer.callback_metrics.items()
        checkpoint["callback_metrics"] = {
            name: torch.as_tensor(value).detach().cpu().clone() for name, value in metrics
        }
        checkpoint["optimizers"] = _class_names(trainer)
        # Lightning resumes with the next epoch and skips the end of this one
        checkpoint["epoch_end_is_due"] = bool(trainer.training and trainer.is_last_batch)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training starts.

        Raises:
            ValueError: the checkpoint has no state of an optimizer.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if "optimizer_states" not in checkpoint:
            raise ValueError(
                f"--ckpt_path {trainer.ckpt_path} contains only weights, so training cannot resume from it. To start a"
                " new run from them, leave --ckpt_path out and list callbacks.StartFrom in trainer.callbacks, with the"
                " file as init_args.path."
            )
        self._metrics = dict(checkpoint.get("callback_metrics", {}))
        self._optimizers = checkpoint.get("optimizers")
        self._epoch_end_is_due = checkpoint.get("epoch_end_is_due", False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse another optimizer before its state is loaded; stay stopped if the run was stopped early.

        Raises:
            ValueError: the checkpoint has the state of an optimizer of another class.
        """
        now = _class_names(trainer)
        if self._optimizers is not None and self._optimizers != now:
            raise ValueError(
                f"model.init_args.optimizer (={', '.join(now)}) cannot load the state of"
                f" {', '.join(self._optimizers)} in the checkpoint. Set the class_path that the run was trained"
                " with. Or start a new run from its weights: leave --ckpt_path out and list"
                f" callbacks.StartFrom in trainer.callbacks, with init_args.path {trainer.ckpt_path}."
            )
        for callback in trainer.callbacks if self._optimizers is not None else ():  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
                trainer.should_stop = True
                rank_zero_info(
                    f"EarlyStopping stopped this run in epoch {callback.stopped_epoch + 1}. To continue training,"
                    " remove it from trainer.callbacks."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the metrics, after Lightning has reset them, and let `EarlyStopping` decide if it has not yet."""
        for name, value in self._metrics.items():
            trainer.callback_metrics[name] = value.to(pl_module.device)
        self._metrics = {}
        for callback in trainer.callbacks if self._epoch_end_is_due else ():  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                callback.on_train_epoch_end(trainer, pl_module)
        self._epoch_end_is_due = False


def _class_names(trainer: Trainer) -> list[str]:
    return [type(optimizer).__name__ for optimizer in trainer.optimizers]
