"""Progress for a terminal and for a log file, where a bar would fill lines with carriage returns."""

import math
import sys
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from lit_vae.ranges import NotNegativeFloat, checked

TERMS = ("loss", "elbo", "rate", "distortion")


def progress_bar() -> ProgressBar:
    """A rich bar at a terminal; plain lines elsewhere (a pipe, a SLURM output file)."""
    return TerminalProgress() if sys.stdout.isatty() else LogProgress()


def _shown(metrics: dict[str, Any]) -> dict[str, Any]:
    """The main terms under short names, first what is optimised; those of validation begin with ``val``.

    That is the ELBO if the loss is its negative. With another weight of the rate, or with terms that are no likelihood,
    it is the loss.
    """
    shown: dict[str, Any] = {}
    for split, mark in (("train", ""), ("val", "val ")):
        terms = {term: metrics[f"{split}/{term}"] for term in TERMS if f"{split}/{term}" in metrics}
        if "loss" in terms and "elbo" in terms:
            loss, elbo = float(terms["loss"]), float(terms["elbo"])
            del terms["loss" if math.isclose(loss, -elbo, rel_tol=1e-5, abs_tol=1e-5) else "elbo"]
        shown |= {mark + term: value for term, value in terms.items()}
    return shown


class _Clock:
    """The speed since training started in this process, and the time left."""

    def __init__(self, trainer: Trainer) -> None:
        self._step, self._time = trainer.global_step, time.monotonic()
        self.total = trainer.estimated_stepping_batches  # looked up once, since it searches the loaders

    def steps_per_second(self, trainer: Trainer) -> float:
        """Optimizer steps per second, with validations and pictures."""
        return (trainer.global_step - self._step) / (time.monotonic() - self._time)

    def left(self, trainer: Trainer) -> str | None:
        """Time to the last step, ``h:mm:ss``; None at the first step, or if the number of steps is unknown."""
        speed = self.steps_per_second(trainer)
        if self.total == float("inf") or speed <= 0.0:
            return None
        return str(timedelta(seconds=round((self.total - trainer.global_step) / speed)))


class TerminalProgress(RichProgressBar):
    """Lightning's rich bar of an epoch, with what is optimised, rate, distortion and the time left of the *run*."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, leave=False)
        self._clock: _Clock | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock = _Clock(trainer)
        super().on_train_start(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The time left and the main terms; for validation only the ELBO or the loss, since a bar is narrow."""
        shown = _shown(super().get_metrics(trainer, pl_module))
        kept = {name: value for name, value in shown.items() if name in (*TERMS, "val elbo", "val loss")}
        left = self._clock.left(trainer) if self._clock is not None else None
        return kept if left is None else {"left": left, **kept}


class LogProgress(ProgressBar):
    """One line at the first step, every ``seconds``, and after every validation.

    ``epoch 3/20  step 1200/9000  elbo -102.31  rate 24.08  distortion 78.23  12.3 it/s  0:03:12 left``
    """

    @checked
    def __init__(self, seconds: NotNegativeFloat = 20.0) -> None:
        super().__init__()
        self._seconds = seconds
        self._enabled = True
        self._last_time = 0.0
        self._clock: _Clock | None = None

    def disable(self) -> None:
        """Print nothing; Lightning calls it on all ranks but rank 0."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._clock = _Clock(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print when it is time."""
        now = time.monotonic()
        if now - self._last_time >= self._seconds:
            self._last_time = now
            self._print_line(trainer, "train/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the numbers of a validation."""
        if not trainer.sanity_checking:
            self._print_line(trainer, "val/")

    def _print_line(self, trainer: Trainer, prefix: str) -> None:
        if not self._enabled:
            return
        metrics = {k: v for k, v in trainer.progress_bar_metrics.items() if k.startswith(prefix)}
        numbers = [f"{name} {float(value):.2f}" for name, value in _shown(metrics).items()]
        print("  ".join([self._position(trainer), *numbers, *self._speed(trainer)]), flush=True)

    def _position(self, trainer: Trainer) -> str:
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        steps = f"/{self._clock.total}" if self._clock is not None and self._clock.total != float("inf") else ""
        return f"epoch {trainer.current_epoch + 1}{epochs}  step {trainer.global_step}{steps}"

    def _speed(self, trainer: Trainer) -> list[str]:
        if self._clock is None or trainer.state.fn != TrainerFn.FITTING:
            return []
        left = self._clock.left(trainer)
        return [f"{self._clock.steps_per_second(trainer):.1f} it/s", *([f"{left} left"] if left else [])]
