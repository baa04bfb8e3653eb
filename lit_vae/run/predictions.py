"""The file that ``lightning predict`` writes."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_vae.images import to_uint8


class PredictionFile(Callback):
    """Writes ``RUN/predictions/rank_<r>.npz``: latents ``z``, labels ``y``, reconstructions ``x_hat`` as uint8.

    The images are those of the test split, in order. Of W ranks, rank r has the images r, r + W, ...
    """

    def __init__(self) -> None:
        self._batches: list[dict[str, np.ndarray]] = []

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Keep a batch on the CPU."""
        values = {**outputs, "x_hat": to_uint8(outputs["x_hat"])}
        self._batches.append({name: value.detach().cpu().numpy() for name, value in values.items()})

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        path = Path(trainer.default_root_dir) / "predictions" / f"rank_{trainer.global_rank}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.concatenate([batch[name] for batch in self._batches]) for name in self._batches[0]}
        np.savez_compressed(path, allow_pickle=False, **arrays)
        self._batches = []
        print(f"predictions: {path}  " + "  ".join(f"{name} {array.shape}" for name, array in arrays.items()))
