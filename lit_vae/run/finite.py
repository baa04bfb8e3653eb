"""Stops a run whose loss or weights are no longer finite; part of every run."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_vae.run.errors import TrainingStopped
from lit_vae.run.weights import some


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of floating-point tensors with a value that is not finite; waits for the device once."""
    tensors = {name: t.detach() for name, t in named if t.is_floating_point() and t.numel()}
    if not tensors:
        return []
    # the largest absolute value: a sum of squares may overflow although each value is finite
    finite = torch.stack([n.float() for n in torch._foreach_norm(list(tensors.values()), torch.inf)]).isfinite()
    return [] if bool(finite.all()) else [n for n, ok in zip(tensors, finite.tolist(), strict=True) if not ok]


class FiniteNumbers(Callback):
    """Stops a run whose loss or weights are not finite, and writes no checkpoint of such weights.

    The loss of every batch is marked in one number on the device. The mark is read at logging steps, before a
    validation, at the end of an epoch and before a checkpoint, so other steps do not wait. Weights are checked before a
    checkpoint and before an evaluation. `callbacks.NaNGuard` stops earlier, before the weights are changed, and names
    the term; it waits for the device at every step.
    """

    def __init__(self) -> None:
        self._mark: Tensor | None = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Mark the loss: 0 x loss is 0 if the loss is finite, else NaN, and NaN stays NaN."""
        if self._mark is None:
            self._mark = torch.zeros((), device=loss.device)
        self._mark.add_(loss.detach(), alpha=0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check at logging steps, which read numbers from the device anyway."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check_loss(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the weights that training starts from."""
        self._mark = None
        self._check(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the loss of a validation during training."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not bool(torch.isfinite(loss)):
            raise self._stopped(trainer, f"val/loss (={loss.item()}) is not finite")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before a picture of such weights fails with another error."""
        self._check(trainer, pl_module)

    on_train_epoch_end = on_test_start = on_predict_start = on_validation_start

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check, so that the checkpoint before is kept."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, model: LightningModule) -> None:
        self._check_loss(trainer)
        if names := not_finite(model.named_parameters()):
            raise self._stopped(trainer, f"weights are not finite: {some(names, 3)}")

    def _check_loss(self, trainer: Trainer) -> None:
        """A collective operation: a bad loss of one rank stops all ranks."""
        if self._mark is None:
            return
        mark = trainer.strategy.reduce(self._mark, reduce_op="sum") if trainer.world_size > 1 else self._mark
        if not bool(mark == 0.0):
            raise self._stopped(trainer, "the loss is not finite")

    def _stopped(self, trainer: Trainer, what: str) -> TrainingStopped:
        if trainer.state.fn != "fit":
            return TrainingStopped(f"{what} ({trainer.ckpt_path}). Give another checkpoint.")
        return TrainingStopped(
            f"{what} at step {trainer.global_step}. Earlier checkpoints are kept. Try a lower learning rate, a warm-up,"
            " or trainer.gradient_clip_val. callbacks.NaNGuard stops at the exact step and names the term."
        )
