"""The status and the cost of a run: ``run.json``."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_vae.run.errors import Interrupted, Preempted, lost_rank
from lit_vae.run.files import RECORD_FILE, DirectoryMoved, write_json
from lit_vae.run.hardware import device_name, peak_memory
from lit_vae.run.protocols import protocols

Status = Literal["running", "finished", "preempted", "interrupted", "failed"]
"""``preempted``: asked to stop, and saved (`lit_vae.run.preemption`). ``interrupted``: stopped by Ctrl-C.
A run that was killed still says ``running``, with an old ``updated``.
"""


class RunRecord(Callback):
    """Writes ``RUN/run.json`` when training starts, at every validation, and when training ends in any way.

    ========================  ======================================================================================
    ``status``                see `Status`; for a failed run, ``error`` is the first line of the error
    ``step``, ``epoch``       optimizer steps taken and epochs begun
    ``seconds``               wall time of training, with validations and pictures; a resumed run adds the seconds up
                              to its checkpoint
    ``parameters``            number of parameters of each part of the model, trained or not
    ``peak_memory_bytes``     of one process: its tensors on a GPU, or the whole process on a CPU
    ``device``, ``ranks``     what it ran on
    ``precision``             of the trainer
    ``protocols``             of the numbers ``val/<name>`` in ``metrics.csv``, see `lit_vae.run.protocols`
    ``updated``               when this was written, UTC
    ========================  ======================================================================================
    """

    def __init__(self) -> None:
        self._before = 0.0  # seconds up to the checkpoint
        self._started: float | None = None
        self._protocols: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The seconds so far, and the protocols of validation numbers."""
        return {"seconds": self._seconds(), "protocols": self._protocols}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to count from a checkpoint."""
        self._before, self._protocols = float(state_dict["seconds"]), dict(state_dict.get("protocols", {}))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._write(trainer, "running")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the progress."""
        if self._started is not None and not trainer.sanity_checking:
            self._write(trainer, "running")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record the error."""
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
        """Record the end."""
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
    """The number of parameters of each child module; ``own``: those of no child.

    So a discriminator (in ``realism``) is not counted with ``encoder`` and ``decoder``.
    """
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    counts["own"] = sum(p.numel() for p in model.parameters(recurse=False))
    return {name: count for name, count in counts.items() if count}
