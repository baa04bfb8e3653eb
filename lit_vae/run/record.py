"""What became of a run, and what it cost: ``run.json``."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_vae.run.errors import Interrupted, Preempted, lost_rank
from lit_vae.run.files import DirectoryMoved, write_json
from lit_vae.run.hardware import device_name, peak_memory
from lit_vae.run.protocols import protocols

RECORD_FILE = "run.json"

Status = Literal["running", "finished", "preempted", "interrupted", "failed"]
"""``preempted``: asked to stop, and saved (`lit_vae.run.preemption`). ``interrupted``: by Ctrl-C.
A run that was killed outright still reads ``running``; ``updated`` then lies behind.
"""


class RunRecord(Callback):
    """Writes ``RUN/run.json`` when training starts, at every validation and at the end of training, however it ends.

    ========================  ======================================================================================
    ``status``                see `Status`; ``error`` is the first line of what a failed run failed of
    ``step``, ``epoch``       optimizer steps taken and epochs begun
    ``seconds``               by the clock, of training those steps: validations and pictures included, and of resumed
                              runs what the checkpoint that they went on from had taken
    ``parameters``            number of parameters of each part of the model, trained or not
    ``peak_memory_bytes``     of one process: of tensors on a GPU, or of the whole process on a CPU
    ``device``, ``ranks``     what it ran on
    ``precision``             of the trainer
    ``protocols``             what the numbers ``val/<name>`` in ``metrics.csv`` are of, see `lit_vae.run.protocols`
    ``updated``               when this was written, UTC
    ========================  ======================================================================================
    """

    def __init__(self) -> None:
        self._before = 0.0  # seconds that the checkpoint gone on from had taken
        self._started: float | None = None
        self._protocols: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The seconds until now, and what the numbers of validations are of."""
        return {"seconds": self._seconds(), "protocols": self._protocols}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from a checkpoint."""
        self._before, self._protocols = float(state_dict["seconds"]), dict(state_dict.get("protocols", {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._write(trainer, "running")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how far it has come."""
        if self._started is not None and not trainer.sanity_checking:
            self._write(trainer, "running")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what it ended with."""
        if self._started is None or isinstance(exception, DirectoryMoved):
            return
        if isinstance(exception, (KeyboardInterrupt, Interrupted)):
            self._write(trainer, "interrupted")
        elif isinstance(exception, Preempted):
            self._write(trainer, "preempted")
        else:
            words = str(exception).strip() or type(exception).__name__
            if lost_rank(exception) == "gone":
                words = "another rank has failed: its error is in the log"
            self._write(trainer, "failed", {"error": words.splitlines()[0]})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that it came to its end."""
        self._write(trainer, "interrupted" if trainer.interrupted else "finished")

    def _seconds(self) -> float:
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)

    def _write(self, trainer: Trainer, status: Status, more: Mapping[str, Any] | None = None) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        device = trainer.strategy.root_device
        self._protocols |= protocols(trainer, "val")
        record = {
            "status": status,
            **(more or {}),
            "model": type(trainer.lightning_module).__name__,
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "seconds": round(self._seconds(), 3),
            "parameters": count_parameters(trainer.lightning_module),
            "peak_memory_bytes": peak_memory(device),
            "device": device_name(device),
            "ranks": trainer.world_size,
            "precision": str(trainer.precision),
            "protocols": self._protocols,
            "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(Path(trainer.default_root_dir) / RECORD_FILE, record)


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Number of parameters of each part that has any: the model's own modules, and those that belong to none of them.

    ``decoder`` and ``encoder`` beside ``realism``, say: a discriminator is no part of the autoencoder that it trains.
    """
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    counts["own"] = sum(p.numel() for p in model.parameters(recurse=False))
    return {name: count for name, count in counts.items() if count}
