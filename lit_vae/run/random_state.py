"""Saves and restores random generators, so that a resumed run draws the same numbers."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RandomState(Callback):
    """Saves all random states of each rank, and restores them before the next batch.

    Without them a resumed run has other noise than an uninterrupted one.
    """

    def __init__(self) -> None:
        self._restore: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Gather the states of all ranks, a collective operation."""
        state = random_state()
        if trainer.world_size > 1:
            states: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, state)
        else:
            states = [state]
        checkpoint["random_states"] = states
        checkpoint["noise_seed"] = getattr(pl_module, "noise_seed", None)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep this rank's state. With another number of ranks, only the seed of the images' noise is restored."""
        pl_module.noise_seed = checkpoint.get("noise_seed")  # type: ignore[assignment]
        states = checkpoint.get("random_states", [])
        self._restore = states[trainer.global_rank] if len(states) == trainer.world_size else None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore once, as late as possible: building the loaders draws numbers, too."""
        if self._restore is not None:
            set_random_state(self._restore)
            self._restore = None


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, as data that loads with ``weights_only=True``."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002  (the global state is to be saved)
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {k: np.asarray(v).tolist() for k, v in numpy_state["state"].items()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Inverse of `random_state`."""
    random.setstate(state["python"])
    numpy_state = state["numpy"]
    key = np.asarray(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
