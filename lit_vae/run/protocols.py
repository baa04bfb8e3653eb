"""The protocols of numbers: how each was measured, stored with the number."""

import math
from typing import Any

from lightning.pytorch import Trainer


def protocols(trainer: Trainer, split: str) -> dict[str, dict[str, Any]]:
    """The protocols of the numbers ``<split>/<name>``, from the attribute ``protocols`` of callbacks: plain values."""
    said: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        said |= {f"{split}/{name}": dict(what) for name, what in getattr(callback, "protocols", {}).items()}
    return said


def replicates(trainer: Trainer, split: str) -> dict[str, list[float]]:
    """The replicates of the numbers ``<split>/<name>``, from the model and callbacks: `lit_vae.intervals`."""
    parts = (trainer.lightning_module, *trainer.callbacks)  # type: ignore[attr-defined]
    found = {f"{split}/{name}": values for part in parts for name, values in getattr(part, "replicates", {}).items()}
    return {name: values for name, values in sorted(found.items()) if values and all(map(math.isfinite, values))}
