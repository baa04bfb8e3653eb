"""Checkpoints that are written completely or not at all, load without running code, and resume exactly."""

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
SPAWNED_WEIGHTS = ".temp.ckpt"
"""The file of weights by which Lightning gets the result of processes started by fork or spawn."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, syncs it, then renames it: a crash leaves the old or the new file, never half.

    Always loads with ``weights_only=True``: a checkpoint is data and cannot run code.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save to a local ``path``."""
        with replacing(Path(path)) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(
                    error.__context__, KeyboardInterrupt
                ):  # Ctrl-C during the write made closing the file fail
                    raise error.__context__ from None
                raise
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Load ``path`` to the CPU unless told otherwise.

        Raises:
            ValueError: it is not a checkpoint, for example a file that contains only weights.
        """
        content = self.read(path, map_location)
        if "state_dict" not in content and Path(path).name != SPAWNED_WEIGHTS:
            held = "only weights" if _are_weights(content) else f"{', '.join(map(repr, list(content)[:5]))}"
            raise ValueError(
                f"checkpoint: {path} contains {held or 'nothing'}, so it is not a checkpoint of a run. To start from"
                " weights, leave --ckpt_path out and list callbacks.StartFrom in trainer.callbacks, with the file as"
                " init_args.path."
            )
        return content

    def read(self, path: Any, map_location: Any = "cpu") -> dict[str, Any]:
        """The mapping in a file: a checkpoint, or only weights."""
        try:
            content = super().load_checkpoint(path, map_location, weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"checkpoint: {path} does not exist. Give the path of a .ckpt file.") from None
        except Exception as error:  # torch.load raises many kinds of error for a file that is not a checkpoint
            raise ValueError(
                f"checkpoint: {path} cannot be read ({why_unreadable(error)}). Give another checkpoint."
            ) from error
        if not isinstance(content, dict):
            raise ValueError(
                f"checkpoint: {path} contains a {type(content).__name__}, not a checkpoint. Give another checkpoint."
            )
        return content


def _are_weights(content: dict[str, Any]) -> bool:
    return bool(content) and all(isinstance(value, torch.Tensor) for value in content.values())


class LastCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``, from which ``--ckpt_path last`` resumes, and the checkpoint before it.

    Saves at the end of every epoch, after every validation, and in between as often as the arguments say.
    ``previous.ckpt`` is the ``last.ckpt`` before: training resumes from it if the last one is damaged.

    Ctrl-C, SIGUSR1, SIGTERM, or a file ``STOP`` in the run directory, on any rank, stops the run: it finishes the
    current step or validation, saves and ends.

    Args:
        every_n_steps: optimizer steps between two checkpoints.
        every_n_minutes: minutes between two checkpoints, instead of steps.
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
        """Listen to signals from now on: before the first step there is nothing to save."""
        self._saved_at_step, self._saved_at = trainer.global_step, time.monotonic()
        self._request = StopRequest(Path(trainer.default_root_dir))
        self._request.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, and when an epoch or training ends, unless a validation follows: that saves after it.

        Not in ``on_train_epoch_end``: from there Lightning 2.6 does not resume with the next batch.
        """
        if _accumulates(trainer, batch_idx):
            return  # a checkpoint has no gradients
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
        """Save, and stop if that was requested."""
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
        """Whether it is time to save; the clock of rank 0 decides for all ranks."""
        step = trainer.global_step
        if step == self._saved_at_step:
            return False
        if self.every_n_steps is not None:
            return step % self.every_n_steps == 0
        if self.every_n_minutes is None:
            return False
        return bool(trainer.strategy.broadcast(time.monotonic() - self._saved_at >= 60.0 * self.every_n_minutes))

    def _save(self, trainer: Trainer) -> None:
        """Save on all ranks, a collective operation; the checkpoint before becomes ``previous.ckpt``."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = Path(trainer.default_root_dir, CHECKPOINTS, LAST)
        if trainer.is_global_zero:
            _add_name(path, path.with_name(PREVIOUS))
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_at_step, self._saved_at = trainer.global_step, time.monotonic()

    def _is_asked_to_stop(self, trainer: Trainer) -> bool:
        """A collective operation. After its last step, training ends anyway."""
        if self._request is None or trainer.fast_dev_run or _is_over(trainer):  # type: ignore[attr-defined]
            return False
        return self._request.anywhere(trainer.is_global_zero, trainer.strategy.root_device)

    def _stop(self, trainer: Trainer) -> NoReturn:
        assert self._request is not None
        self._request.stop(trainer.is_global_zero, trainer.global_step)


def _add_name(path: Path, name: Path) -> None:
    """Hard-link a file to a second name, replacing the file there; without hard links, rename it."""
    if not path.exists():
        return
    with replacing(name) as beside:
        try:
            os.link(path, beside)
        except OSError:  # the file system has no hard links
            path.replace(beside)


def _is_over(trainer: Trainer) -> bool:
    """Whether the last step has been taken."""
    in_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.global_step == trainer.max_steps or (trainer.is_last_batch and in_last_epoch)


def _accumulates(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the gradients of this batch are kept for the next one."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches != 0 and not trainer.is_last_batch


def _validates_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a validation follows an epoch's last batch, by ``check_val_every_n_epoch`` and ``val_check_interval``.

    False if unsure: then the end of the epoch is saved, and a validation saves again.
    """
    every, interval = trainer.check_val_every_n_epoch, validation_interval(trainer)
    if interval is None:
        return False
    if every is None:
        return (batch_index(trainer) + 1) % interval == 0
    return (trainer.current_epoch + 1) % every == 0 and (interval == float("inf") or (batch_idx + 1) % interval == 0)


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/best.ckpt``: the weights at the validation with the best ``monitor``.

    Only validations at which the model `is_settled` count. Otherwise a model with a discriminator would keep its
    weights from just before the discriminator's loss begins, when the distortion is lowest.

    Args:
        monitor: a logged number. ``val/loss`` is the objective with schedules at their final value.
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
        """Write into the run directory."""
        self.dirpath = os.path.join(trainer.default_root_dir, CHECKPOINTS)
        with warnings.catch_warnings():  # a resumed run has checkpoints there
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Use the ``best.ckpt`` of this run directory: the run may have been moved. A fork has none yet."""
        assert self.dirpath is not None  # by `setup`
        here = Path(self.dirpath, f"{self.filename}.ckpt")
        if here.is_file():
            scores = {str(here): score for score in state_dict["best_k_models"].values()}
            paths = {name: str(here) for name in ("best_model_path", "kth_best_model_path") if state_dict[name]}
            super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the validation is the best so far."""
        if not isinstance(pl_module, Model) or pl_module.is_settled(trainer.global_step):
            super().on_validation_end(trainer, pl_module)
