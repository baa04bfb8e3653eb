"""Checkpoints that are whole or absent, load without executing anything, and resume exactly."""

import os
import time
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from lit_vae.models.module import Model
from lit_vae.ranges import PositiveFloat, PositiveInt, checked
from lit_vae.run.files import replacing, why_unreadable
from lit_vae.run.lightning_internals import batch_index, validation_interval
from lit_vae.run.preemption import StopRequest

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS, BROKEN = "last.ckpt", "previous.ckpt", "broken.ckpt"
HANDED_OVER = ".temp.ckpt"
"""Weights alone, which Lightning takes back from processes that it has started by fork or spawn."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, then renames: after a crash there is the old file or the new one, never half.

    Loads with ``weights_only=True`` always: a checkpoint is data and cannot run code.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save to a local ``path``."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, KeyboardInterrupt):  # Ctrl-C while it wrote, and it stumbled closing
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Load ``path`` to the CPU unless told otherwise.

        Raises:
            ValueError: it is no checkpoint, as a file of weights alone is none.
        """
        content = self.read(path, map_location)
        if "state_dict" not in content and Path(path).name != HANDED_OVER:
            held = "weights alone" if _are_weights(content) else f"{', '.join(map(repr, list(content)[:5]))}"
            raise ValueError(
                f"checkpoint: {path} holds {held or 'nothing'}, and is no checkpoint of a run. To train from weights"
                " alone, leave --ckpt_path out and list callbacks.StartFrom in trainer.callbacks, with the file as"
                " init_args.path."
            )
        return content

    def read(self, path: Any, map_location: Any = "cpu") -> dict[str, Any]:
        """Whatever mapping a file holds, be it a checkpoint's or weights alone."""
        try:
            content = super().load_checkpoint(path, map_location, weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"checkpoint: {path} does not exist. Give the path of a .ckpt file.") from None
        except Exception as error:  # an unpickler stumbles over a file that is none in any way it likes
            raise ValueError(
                f"checkpoint: {path} cannot be read ({why_unreadable(error)}). Give another checkpoint."
            ) from error
        if not isinstance(content, dict):
            raise ValueError(
                f"checkpoint: {path} holds a {type(content).__name__}, and no checkpoint. Give another checkpoint."
            )
        return content


def _are_weights(content: dict[str, Any]) -> bool:
    return bool(content) and all(isinstance(value, torch.Tensor) for value in content.values())


class LastCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``, from which a run goes on with ``--ckpt_path last``, and the one before it.

    Written at the end of every epoch and after every validation, and in between as often as asked. ``previous.ckpt`` is
    what was ``last.ckpt`` until then: it is gone on from where the last one is found broken.

    Where a run can be saved it can be stopped: asked by Ctrl-C, SIGUSR1, SIGTERM or a file ``STOP`` in the run
    directory, on any rank, it saves after the step that is under way and ends. A validation that has begun is
    ended first.

    Args:
        every_n_steps: optimizer steps between two.
        every_n_minutes: minutes between two, instead of steps.
    """

    @checked
    def __init__(self, every_n_steps: PositiveInt | None = None, every_n_minutes: PositiveFloat | None = None) -> None:
        if every_n_steps and every_n_minutes:
            raise ValueError(
                f"LastCheckpoint: every_n_steps (={every_n_steps}) and every_n_minutes (={every_n_minutes}) cannot both"
                " be set. Set last_checkpoint.every_n_steps or last_checkpoint.every_n_minutes to null."
            )
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self._saved_at_step, self._saved_at = 0, time.monotonic()
        self._request: StopRequest | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal asks for a stop; until now there was nothing to lose."""
        self._saved_at_step, self._saved_at = trainer.global_step, time.monotonic()
        self._request = StopRequest(Path(trainer.default_root_dir))
        self._request.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, and where an epoch or training ends; but a validation that follows belongs to the state.

        Not in ``on_train_epoch_end``: from there Lightning 2.6 does not resume with the next batch.
        """
        if _accumulates(trainer, batch_idx):
            return  # gradients are no part of a checkpoint
        ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        validates = trainer.enable_validation and _validates_after(trainer, batch_idx)
        if trainer.is_last_batch and validates:
            return
        asked = not validates and self._is_asked_to_stop(trainer)
        if ends or asked or self._is_due(trainer):
            self._save(trainer)
        if asked:
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop if asked to."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._save(trainer)
            if self._is_asked_to_stop(trainer):
                self._stop(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        if self._request is not None:
            self._request.leave()

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether it is time for one in between; the first rank's clock decides for all."""
        step = trainer.global_step
        if step == self._saved_at_step:
            return False
        if self.every_n_steps is not None:
            return step % self.every_n_steps == 0
        if self.every_n_minutes is None:
            return False
        return bool(trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60.0 * self.every_n_minutes))

    def _save(self, trainer: Trainer) -> None:
        """Save, and keep the one that was there: a second name for it, and the new one then takes the first name only.

        A collective.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = Path(trainer.default_root_dir, CHECKPOINTS, LAST)
        if trainer.is_global_zero:
            _name_also(path, path.with_name(PREVIOUS))
        trainer.save_checkpoint(path)
        self._saved_at_step, self._saved_at = trainer.global_step, time.monotonic()

    def _is_asked_to_stop(self, trainer: Trainer) -> bool:
        """A collective. A training that is at its end is not stopped but ends."""
        if self._request is None or trainer.fast_dev_run or _is_over(trainer):  # type: ignore[attr-defined]
            return False
        return self._request.anywhere(trainer.is_global_zero, trainer.strategy.root_device)

    def _stop(self, trainer: Trainer) -> NoReturn:
        assert self._request is not None
        self._request.stop(trainer.is_global_zero, trainer.global_step)


def _name_also(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what has it; where files have one name each, that one instead."""
    if not path.exists():
        return
    with replacing(name) as beside:
        try:
            os.link(path, beside)
        except OSError:  # no hard links here
            path.replace(beside)


def _is_over(trainer: Trainer) -> bool:
    """Whether the step that was just taken is the last one."""
    in_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (trainer.is_last_batch and in_last_epoch)


def _accumulates(trainer: Trainer, batch_idx: int) -> bool:
    """Whether gradients of this batch wait for those of the next."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation follows an epoch's last batch, by ``check_val_every_n_epoch`` and ``val_check_interval``.

    In doubt it does not: then the epoch's end is saved, and a validation saves again.
    """
    every, interval = trainer.check_val_every_n_epoch, validation_interval(trainer)
    if interval is None:
        return False
    if every is None:
        return (batch_index(trainer) + 1) % interval == 0
    return (trainer.current_epoch + 1) % every == 0 and (interval == float("inf") or (batch_idx + 1) % interval == 0)


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``: the weights of the validation with the best ``monitor``.

    Of validations at which the model `is_settled`: one with an adversary has its best distortion just before the
    decoder feels it, and would be kept as it was then.

    Args:
        monitor: a logged number. ``val/loss`` is the objective with its schedules at their final value.
        mode: ``min`` or ``max``.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min") -> None:
        super().__init__(
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=False,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the run directory."""
        self.dirpath = os.path.join(trainer.default_root_dir, CHECKPOINTS)
        with warnings.catch_warnings():  # that of a resumed run holds its checkpoints
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the file that lies here, wherever it lay: a run may have been moved. A fork has none yet."""
        assert self.dirpath is not None  # by `setup`
        here = Path(self.dirpath, f"{self.filename}.ckpt")
        if here.is_file():
            scores = {str(here): score for score in state_dict["best_k_models"].values()}
            paths = {name: str(here) for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
            super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if it is the best so far."""
        if not isinstance(pl_module, Model) or pl_module.is_settled(trainer.global_step):
            super().on_validation_end(trainer, pl_module)
