"""Exponential moving average of the weights."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_vae.ranges import BelowOne, PositiveInt, checked


class EMA(WeightAveraging):
    """Keeps ``average <- decay average + (1 - decay) weights``, and validates, draws and tests with it.

    The average is in the model for the whole of a validation: from ``on_validation_start`` to ``on_validation_end``,
    so in every ``on_validation_epoch_end`` whatever the order of the callbacks. A checkpoint's ``state_dict`` is the
    average, which is what tests and tools load; the trained weights are in ``current_model_state``, from which a run is
    resumed bit by bit. Both hold for a checkpoint written at any moment, in the middle of a validation too.
    After training the model holds the average.

    Buffers are copied: a codebook is a moving average already, and a revived code must not lag behind.

    Lightning's `WeightAveraging` does the bookkeeping. This class differs from its ``EMAWeightAveraging`` where that
    one puts the weights back before other callbacks have seen the average, tests a checkpoint after a fit with the
    wrong weights, averages on the CPU for a model on a GPU, and updates one parameter at a time.

    Args:
        decay: after warm-up; 0.999 averages over about the last 1000 updates.
        warmup: use ``min(decay, (1 + t) / (10 + t))`` at update t, so that the first steps are soon forgotten.
        every_n_steps: optimizer steps between two updates.
    """

    @checked
    def __init__(self, decay: BelowOne = 0.999, warmup: bool = True, every_n_steps: PositiveInt = 1) -> None:
        super().__init__(multi_avg_fn=self._update, use_buffers=False)
        self.decay, self.warmup, self.every_n_steps = decay, warmup, every_n_steps
        self._average_in_model = False

    def decay_at(self, num_updates: int) -> float:
        """Decay of the update after ``num_updates`` others (the first one copies the weights)."""
        return min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.warmup else self.decay

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """After every n-th optimizer step, the first one included."""
        return step_idx is not None and step_idx % self.every_n_steps == 0

    @torch.no_grad()
    def _update(self, average: Any, current: Any, num_updates: Tensor | int) -> None:
        """One update of all parameters of a dtype."""
        torch._foreach_lerp_(average, current, 1.0 - self.decay_at(int(num_updates)))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start an average for a fit; outside a fit there is none, and the model's weights are used as they are."""
        self._average_model = None
        self._average_in_model = False
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device, where it only now is."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the model."""
        self._exchange(pl_module, average_in_model=True)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Done in `on_validation_start`."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Done in `on_validation_end`."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        self._exchange(pl_module, average_in_model=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        self._exchange(pl_module, average_in_model=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as ``state_dict``, the trained weights as ``current_model_state``, wherever they are now."""
        if self._average_model is None:  # a model loaded for a test: its weights are all there is
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._average_in_model:
            average, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = average, current

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Resume both in a fit; anywhere else the average, which ``state_dict`` is, has been loaded already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _exchange(self, pl_module: LightningModule, average_in_model: bool) -> None:
        """Have the average in the model, or the trained weights; the average model holds the others."""
        if self._average_model is not None and self._average_in_model != average_in_model:
            self._swap_models(pl_module)
            self._average_in_model = average_in_model
