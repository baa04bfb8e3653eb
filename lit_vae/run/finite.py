"""The end of a run whose loss or weights are no numbers any more; part of every run."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_vae.run.errors import TrainingStopped

_NAMED = 3


def not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the floating-point tensors with a value that is not finite; one wait for the device if none has."""
    tensors = {name: t.detach() for name, t in named if t.is_floating_point() and t.numel()}
    if not tensors:
        return []
    # the largest absolute value: a sum of squares may overflow where no value does
    finite = torch.stack([n.float() for n in torch._foreach_norm(list(tensors.values()), torch.inf)]).isfinite()
    return [] if bool(finite.all()) else [n for n, ok in zip(tensors, finite.tolist(), strict=True) if not ok]


def in_few(names: list[str]) -> str:
    """The first names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


class FiniteNumbers(Callback):
    """Fails a run whose loss or weights are not finite, and writes no checkpoint of such weights.

    The loss of every batch leaves its mark in one number on the device, which is read at logging steps, before a
    validation, at the end of an epoch and before a checkpoint: no step waits. Weights are looked at where a checkpoint
    is written and where an evaluation begins. `callbacks.NaNGuard` stops earlier, before the weights are spoilt, and
    names the term; it waits for the device once a step.
    """

    def __init__(self) -> None:
        self._mark: Tensor | None = None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Mark it: zero times a number is zero, zero times what is none is none, and stays so."""
        if self._mark is None:
            self._mark = torch.zeros((), device=loss.device)
        self._mark.add_(loss.detach(), alpha=0.0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at logging steps, where numbers are read anyway."""
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check_loss(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run goes on from."""
        self._mark = None
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before a picture of it fails of something else."""
        self._check(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The loss of a validation in training."""
        loss = trainer.callback_metrics.get("val/loss")
        if loss is None or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if not bool(torch.isfinite(loss)):
            raise self._stopped(trainer, f"val/loss (={loss.item()}) is not finite")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before a picture of it fails of something else."""
        self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the one that is there."""
        self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to measure them."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to use them."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, model: LightningModule) -> None:
        self._check_loss(trainer)
        if names := not_finite(model.named_parameters()):
            raise self._stopped(trainer, f"weights are not finite: {in_few(names)}")

    def _check_loss(self, trainer: Trainer) -> None:
        """On all ranks at the same steps: what one has met ends all."""
        if self._mark is None:
            return
        mark = trainer.strategy.reduce(self._mark, reduce_op="sum") if trainer.world_size > 1 else self._mark
        if not bool(mark == 0.0):
            raise self._stopped(trainer, "the loss is not finite")

    def _stopped(self, trainer: Trainer, what: str) -> TrainingStopped:
        if trainer.state.fn != "fit":
            return TrainingStopped(f"{what} ({trainer.ckpt_path}). Give another checkpoint.")
        return TrainingStopped(
            f"{what} at step {trainer.global_step}. Checkpoints of before are kept. Try a lower or warmed up learning"
            " rate, or trainer.gradient_clip_val; callbacks.NaNGuard stops at the very step and names the term."
        )
