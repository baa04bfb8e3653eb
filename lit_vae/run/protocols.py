"""What a number is of: said by the callback that measured it, kept wherever the number is kept."""

from typing import Any

from lightning.pytorch import Trainer


def protocols(trainer: Trainer, split: str) -> dict[str, dict[str, Any]]:
    """Of the numbers ``<split>/<name>`` of all callbacks that say more of them than data and split: plain values.

    A callback says it in ``protocols``, by name.
    """
    said: dict[str, dict[str, Any]] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        said |= {f"{split}/{name}": dict(what) for name, what in getattr(callback, "protocols", {}).items()}
    return said
