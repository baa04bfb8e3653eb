"""What ``lightning fit`` is timed with: a callback that takes turns with the bare loop, and a naive model."""

import gc
import json
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.experiment import BareLoop
from benchmarks.timing import now
from lit_vae.images import Batch
from lit_vae.models.vae import VAE

RESULT_FILE = "seconds.json"


class Turns(Callback):
    """Times the steps of an epoch, then an epoch of the bare loop in the same process, and so on to the end.

    What an epoch begins and ends with (a checkpoint, a new permutation) is left out: a *step* is compared. The first
    epoch of both is not counted. Writes ``RUN/seconds.json``.

    Args:
        config: file with the configuration that the bare loop is built from.
        warmup: steps at the start of an epoch that are not timed.
    """

    def __init__(self, config: str, warmup: int) -> None:
        self.config, self.warmup = config, warmup
        self.seconds: dict[str, list[float]] = {"lightning": [], "bare": []}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        config = yaml.safe_load(Path(self.config).read_text())
        self.bare = BareLoop(config, pl_module.device, log_every=trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 == self.warmup:
            gc.collect()
            self.start = now(pl_module.device)
        elif batch_idx + 1 == trainer.num_training_batches:
            lightning = (now(pl_module.device) - self.start) / (batch_idx + 1 - self.warmup)
            gc.collect()
            bare = self.bare.seconds_per_step(self.warmup)
            if trainer.current_epoch > 0:
                self.seconds["lightning"].append(lightning)
                self.seconds["bare"].append(bare)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(trainer.default_root_dir, RESULT_FILE).write_text(json.dumps(self.seconds))


class NaiveVAE(VAE):
    """Logs its five numbers as Lightning's tutorials do: at every step, and averaged over the epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        result = self.step(batch, self.global_step, None)
        for name, value in result.terms.items():
            self.log(f"train/{name}", value.mean(), on_step=True, on_epoch=True, prog_bar=True)
        self.log("train/beta", result.scalars["beta"], on_step=True, on_epoch=True)
        return result.terms["loss"].mean()
