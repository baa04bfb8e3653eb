"""Exponential moving average of the weights."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lit_vae.ranges import BelowOne, PositiveInt, checked

_WRAPPED = "module."  # prefix of weight names in torch's AveragedModel


class EMA(Callback):
    """Keeps ``average <- decay average + (1 - decay) weights``; validation, pictures and tests use the average.

    The model holds the average from ``on_validation_start`` to ``on_validation_end``, so the order of the callbacks
    does not matter, and after training. In every checkpoint, ``state_dict`` is the average, which tests and tools load;
    ``current_model_state`` has the trained weights, from which a run resumes bit by bit.

    Buffers are copied: a codebook is a moving average already, and a revived code must not lag behind.

    Checkpoints have the keys of Lightning's ``WeightAveraging``. That callback restores the weights before other
    callbacks have seen the average, tests with the wrong weights after a fit, and averages on the CPU for a model on a
    GPU.

    Args:
        decay: decay after warm-up; 0.999 averages over about the last 1000 updates.
        warmup: use ``min(decay, (1 + t) / (10 + t))`` at update t, so that the first steps are soon forgotten.
        every_n_steps: optimizer steps between two updates.
    """

    @checked
    def __init__(self, decay: BelowOne = 0.999, warmup: bool = True, every_n_steps: PositiveInt = 1) -> None:
        self.decay, self.warmup, self.every_n_steps = decay, warmup, every_n_steps
        self._average: AveragedModel | None = None
        self._updated_at_step = 0
        self._average_in_model = False

    def decay_at(self, num_updates: int) -> float:
        """Decay after ``num_updates`` updates (the first update copies the weights)."""
        return min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.warmup else self.decay

    def _update(self, average: Any, current: Any, num_updates: Tensor | int) -> None:
        """Update all parameters of one dtype."""
        get_ema_multi_avg_fn(self.decay_at(int(num_updates)))(average, current, num_updates)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start an average for a fit. Outside a fit there is none; the model keeps its weights."""
        self._average_in_model = False
        self._average = AveragedModel(pl_module, multi_avg_fn=self._update) if stage == "fit" else None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the model's device."""
        assert self._average is not None  # by `setup`
        self._average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after every n-th optimizer step, starting with the first."""
        step = trainer.global_step
        if step > self._updated_at_step and (step - 1) % self.every_n_steps == 0:
            assert self._average is not None  # by `setup`
            self._average.update_parameters(pl_module)
            self._updated_at_step = step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average into the model."""
        self._exchange(pl_module, average_in_model=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        self._exchange(pl_module, average_in_model=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        self._exchange(pl_module, average_in_model=True)

    def state_dict(self) -> dict[str, Any]:
        """The step of the last update."""
        return {"latest_update_step": self._updated_at_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the step of the last update."""
        self._updated_at_step = state_dict["latest_update_step"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as ``state_dict`` and the trained weights as ``current_model_state``."""
        if self._average is None:  # no fit
            return
        held = self._average.state_dict()
        apart = {name.removeprefix(_WRAPPED): value for name, value in held.items() if name.startswith(_WRAPPED)}
        in_model = checkpoint["state_dict"]
        average, trained = (in_model, apart) if self._average_in_model else (apart, in_model)
        counts = {name: value for name, value in held.items() if not name.startswith(_WRAPPED)}
        checkpoint.update(state_dict=average, current_model_state=trained, averaging_state=counts)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """In a fit, resume average and weights. Elsewhere the average is already loaded, as ``state_dict``.

        If the checkpoint has no average, start one from its weights.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        assert self._average is not None  # by `setup`
        if "current_model_state" in checkpoint:
            average = {_WRAPPED + name: value for name, value in checkpoint["state_dict"].items()}
            self._average.load_state_dict(average | checkpoint["averaging_state"])
            pl_module.load_state_dict(checkpoint["current_model_state"])
        else:
            self._average.module.load_state_dict(checkpoint["state_dict"])

    def _exchange(self, pl_module: LightningModule, average_in_model: bool) -> None:
        """Put the average or the trained weights into the model, and the other into the average model."""
        if self._average is None or self._average_in_model == average_in_model:
            return
        for apart, in_model in zip(_tensors(self._average.module), _tensors(pl_module), strict=True):
            kept = apart.clone()
            apart.copy_(in_model)
            in_model.copy_(kept)
        self._average_in_model = average_in_model


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, without gradients."""
    return (tensor.detach() for tensor in chain(module.parameters(), module.buffers()))
