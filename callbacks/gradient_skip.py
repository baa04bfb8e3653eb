"""Skips optimizer steps with exploding gradients, counts them, and stops a run that skips too many."""

import math
from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.optim import Optimizer

from lit_vae.models.module import Model
from lit_vae.ranges import PositiveFloat, PositiveInt, checked
from lit_vae.run.errors import TrainingStopped


class GradientSkip(Callback):
    """Skips an optimizer step if the norm of the gradient is above ``max_norm`` or not finite.

    Very deep hierarchies have rare gradients that clipping does not make harmless (Child, "Very Deep VAEs", 2021,
    sec. 3.1). A skipped step changes neither weights nor moments; the learning-rate schedule goes on. The norm is that
    before ``trainer.gradient_clip_val``, of a loss in nats per image; VDVAE's code divides its loss by the number of
    dimensions, so its thresholds do not carry over. Logged: ``train/grad_norm``, and the number so far as
    ``train/skipped_steps``. The check waits for the device once per step.

    Args:
        max_norm: largest norm of the gradient of all parameters.
        max_skips: largest number of skipped steps within ``window``.
        window: optimizer steps.

    Raises:
        TrainingStopped: more than ``max_skips`` of the last ``window`` steps were skipped.
        ValueError: float16 precision.
    """

    @checked
    def __init__(self, max_norm: PositiveFloat, max_skips: PositiveInt = 20, window: PositiveInt = 200) -> None:
        if max_skips >= window:
            raise ValueError(
                f"GradientSkip: max_skips (={max_skips}) must be less than window (={window}), or training could skip"
                " every step."
            )
        self.max_norm, self.max_skips, self.window = max_norm, max_skips, window
        self.num_skipped = 0
        self._recent: deque[int] = deque()  # skipped steps of the window
        self._norm = math.nan

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse float16, whose gradients are still scaled for an optimizer that is fused."""
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                f"GradientSkip: trainer.precision (={trainer.precision}) scales the gradients, and skips those that"
                " overflow by itself. Take bf16-mixed, or remove callbacks.GradientSkip from trainer.callbacks."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients if they are too large: an optimizer leaves parameters without gradient as they are."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self._norm = float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if self._norm <= self.max_norm:
            return
        for parameter in parameters:
            parameter.grad = None
        self._count(trainer.global_step)

    def _count(self, step: int) -> None:
        self.num_skipped += 1
        self._recent.append(step)
        while self._recent[0] <= step - self.window:
            self._recent.popleft()
        if len(self._recent) > self.max_skips:
            raise TrainingStopped(
                f"GradientSkip: {len(self._recent)} of the last {min(self.window, step + 1)} steps were skipped, more"
                f" than max_skips (={self.max_skips}); at step {step} the norm of the gradient was {self._norm:.3g},"
                f" and max_norm (={self.max_norm:g}). Raise max_norm, lower the learning rate, or warm it up."
            )
        if self.num_skipped == 1:
            rank_zero_warn(
                f"GradientSkip: step {step} was skipped, because the norm of its gradient ({self._norm:.3g}) is not"
                f" at most max_norm (={self.max_norm:g}). train/skipped_steps counts the next ones."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log norm and count, on logging steps."""
        step, logged = pl_module.last_logged if isinstance(pl_module, Model) else (-1, {})
        if step != trainer.global_step - 1 or not logged:
            return
        numbers = {"train/grad_norm": self._norm, "train/skipped_steps": float(self.num_skipped)}
        pl_module.log_dict(numbers)
        logged.update(numbers)  # checkpoints save them with the step's other numbers

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how many steps were skipped."""
        if self.num_skipped:
            rank_zero_info(f"GradientSkip: {self.num_skipped} of {trainer.global_step} steps were skipped.")

    def state_dict(self) -> dict[str, Any]:
        """The counts, so that a resumed run goes on counting."""
        return {"num_skipped": self.num_skipped, "recent": list(self._recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.num_skipped, self._recent = state_dict["num_skipped"], deque(state_dict["recent"])
