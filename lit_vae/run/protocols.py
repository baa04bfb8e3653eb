"""The protocols of numbers: how each was measured, stored with the number."""

from typing import Any

from lightning.pytorch import Trainer


def protocols(trainer: Trainer, split: str) -> dict[str, dict[str, Any]]:
    """The protocols of the numbers ``<split>/<name>``, from the attribute ``protocols`` of callbacks: plain values."""
    said: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        said |= {f"{split}/{name}": dict(what) for name, what in getattr(callback, "protocols", {}).items()}
    return said
