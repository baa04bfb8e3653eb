"""Ends training once a measured number has stopped growing."""

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_vae.ranges import OpenUnitInterval, PositiveFloat, checked


class StopWhenFlat(Callback):
    """Ends training at a validation if the last tenth of the run has raised a number by too little.

    At step t it compares the number with that at step ``(1 - share) t``, taken from the line between two validations.
    Give `trainer.max_steps` an upper bound.

    Args:
        monitor: a number of every validation, of which more is better.
        gain: training ends below this gain, in the units of the number (dB for ``val/psnr``).
        share: the last part of the run, of 1.
    """

    @checked
    def __init__(self, monitor: str = "val/psnr", gain: PositiveFloat = 0.05, share: OpenUnitInterval = 0.1) -> None:
        self.monitor = monitor
        self.gain = gain
        self.share = share
        self.seen: list[tuple[int, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with the start of the last part, and ask the trainer to stop."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        step, value = trainer.global_step, float(trainer.callback_metrics[self.monitor])
        self.seen.append((step, value))
        steps, values = zip(*self.seen, strict=True)
        start = (1.0 - self.share) * step
        if steps[0] <= start and value - np.interp(start, steps, values) < self.gain:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """The numbers of all validations, so that a resumed run ends at the same step."""
        return {"seen": list(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.seen = [(int(step), float(value)) for step, value in state_dict["seen"]]
