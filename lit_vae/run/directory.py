"""The run directory: its path, its files, and when a command may write into it."""

import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lit_vae.encoded import EncodedSpec
from lit_vae.images import ImageSpec
from lit_vae.models.module import Model
from lit_vae.run.checkpoints import CHECKPOINTS
from lit_vae.run.continuing import CONFIG_KEY, Continuation, is_of
from lit_vae.run.files import CONFIG_FILE, METRICS_FILE, TEST_METRICS_FILE, replacing, write_json
from lit_vae.run.loading import identity
from lit_vae.run.loggers import MetricsCSV, WandB
from lit_vae.run.protocols import protocols, replicates
from lit_vae.run.wandb_reopened import send_numbers


def choose_run_dir(run_dir: str | None, config_files: list[Path], ckpt_path: str | None, fit: bool) -> Path:
    """The directory that a command writes into.

    This is ``run_dir`` if it is given. For ``last``, ``best`` and ``auto`` it is the folder of the given
    ``config.yaml``, and for a path of a checkpoint its run. Otherwise it is a new
    ``runs/<config name>/<time or SLURM job id>``.

    Raises:
        ValueError: ``--ckpt_path last`` without a run, or several processes that cannot agree on a new name.
    """
    if run_dir is not None:
        return _usable(run_dir)
    if ckpt_path in ("last", "best", "auto"):
        for config in config_files:
            if config.name == CONFIG_FILE and (config.parent / CHECKPOINTS).is_dir():
                return config.parent
    if ckpt_path in ("last", "best"):
        raise ValueError(
            f"--ckpt_path {ckpt_path}: which run? Give --run_dir RUN, or --config RUN/{CONFIG_FILE} of the run to"
            " resume."
        )
    if ckpt_path is not None and Path(ckpt_path).parent.name == CHECKPOINTS and not fit:
        return Path(ckpt_path).parent.parent
    return _usable(f"runs/{_config_name(config_files)}/{_run_name()}")


def _usable(run_dir: str) -> Path:
    placeholder = re.search(r"%\d*[AaJjNnstux](?![A-Za-z])", run_dir)
    absolute = Path(run_dir).absolute()
    too_long = [part for part in (*absolute.parts, str(absolute)) if len(os.fsencode(part)) > (255, 4000)["/" in part]]
    problems = (
        (not run_dir.strip(), "it is empty. Give a directory, or leave --run_dir out for a new one in runs."),
        (any(ord(c) < 32 for c in run_dir), "it contains control characters. Give another name."),
        (run_dir.startswith("~"), "this machine has no such user. Give the path without ~."),
        (
            placeholder,
            f"{placeholder and placeholder.group()} works only in #SBATCH --output. Leave --run_dir out, and the run is"
            " named after the job; or write $SLURM_JOB_ID.",
        ),
        (too_long, "a name in it is longer than 255 bytes, the limit of file systems. Give a shorter one."),
    )
    for found, problem in problems:
        if found:
            shown = run_dir if len(run_dir) <= 100 else f"{run_dir[:60]}..."
            raise ValueError(f"--run_dir {shown!r}: {problem}")
    return Path(run_dir)


def _config_name(config_files: list[Path]) -> str:
    """``configs/vae/mnist.yaml`` -> ``vae-mnist``; a run's own ``config.yaml`` keeps the name of its run."""
    if not config_files:
        return "unnamed"
    first = config_files[0]
    if first.name == CONFIG_FILE:
        return first.absolute().parent.parent.name
    parent = first.absolute().parent.name
    return f"{parent}-{first.stem}" if parent != "configs" else first.stem


def _run_name() -> str:
    """SLURM job id, or time of the start; processes that Lightning starts inherit it through the environment."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if "SLURM_JOB_ID" in os.environ:
        return os.environ["SLURM_JOB_ID"]
    if "LIT_VAE_RUN_NAME" not in os.environ:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("--run_dir: processes of torchrun cannot agree on a new name. Give --run_dir.")
        os.environ["LIT_VAE_RUN_NAME"] = time.strftime("%Y%m%d-%H%M%S")
    return os.environ["LIT_VAE_RUN_NAME"]


def refuse_occupied(run_dir: Path, checkpoint: str | None, ckpt_path: str | None) -> None:
    """Refuse to train in the directory of a run, unless to resume it, or if it has neither checkpoints nor numbers.

    ``ckpt_path`` is what the user gave, ``checkpoint`` the file that it means.

    Raises:
        ValueError: the run in the directory would be lost, or mixed with another.
    """
    if ckpt_path == "auto" or (checkpoint is not None and is_of(Path(checkpoint), run_dir)):
        return
    there = f"--run_dir {run_dir} already contains a run"
    if any((run_dir / CHECKPOINTS).glob("*.ckpt")):
        other = "" if checkpoint is None else f", and --ckpt_path {checkpoint} is a checkpoint of another"
        raise ValueError(
            f"{there}{other}. Add --ckpt_path last to resume it, or give another directory. Nothing was written."
        )
    metrics = run_dir / METRICS_FILE
    if metrics.is_file() and metrics.read_bytes().count(b"\n") > 1:
        raise ValueError(
            f"{there} that has no checkpoint. Add --ckpt_path auto to start it again and drop its numbers, or give"
            " another directory. Nothing was written."
        )


class RunDirectory(Callback):
    """Writes ``config.yaml`` when a run starts and ``test_metrics.json`` after a test; lists pictures at the end."""

    begun = False
    """Whether training or an evaluation has begun in this process. A later error is not a mistake of the user."""

    def __init__(self, continuation: Continuation, resumed: bool = False) -> None:
        self._continuation = continuation
        self._resumed = resumed
        self._tested = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the data module's ``run_files``. If the run starts from the beginning, start ``metrics.csv`` again."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for name, text in getattr(getattr(trainer, "datamodule", None), "run_files", {}).items():
            with replacing(Path(trainer.default_root_dir) / name) as partial:
                partial.write_text(text)
        if stage == "fit":
            for logger in () if self._resumed else trainer.loggers:
                if isinstance(logger, MetricsCSV):  # an earlier start was killed before its first checkpoint
                    logger.rewind(0)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the configuration, and the numbers of this step: its checkpoint is written before its row."""
        checkpoint[CONFIG_KEY] = self._continuation.config
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                checkpoint[METRICS_FILE] = logger.synced(before=trainer.global_step - 1)
        step, values = getattr(pl_module, "last_logged", (-1, {}))
        if step == trainer.global_step - 1:
            row = {name: float(torch.as_tensor(value, dtype=torch.float32)) for name, value in values.items()}
            checkpoint["last_logged"] = {"step": step, "epoch": trainer.current_epoch, "values": row}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop the rows after the checkpoint, and add the row of its own step. Apply changed settings."""
        if self._resumed and isinstance(pl_module, Model):
            self._continuation.apply(pl_module, trainer.callbacks, checkpoint)  # type: ignore[attr-defined]
        for logger in trainer.loggers if self._resumed else ():
            if isinstance(logger, MetricsCSV):
                logger.rewind(checkpoint["global_step"])
                logger.expect(checkpoint.get(METRICS_FILE, {}), before=checkpoint["global_step"] - 1)
                if last := checkpoint.get("last_logged"):
                    logger.log_metrics({**last["values"], "epoch": last["epoch"]}, last["step"])
        rows = [row for logger in trainer.loggers if isinstance(logger, MetricsCSV) for row in logger.rows()]
        for logger in trainer.loggers if self._resumed and rows else ():
            if isinstance(logger, WandB):
                logger.resend_last_pictures()
                logger.catch_up(rows)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begun`."""
        RunDirectory.begun = True

    on_predict_start = on_sanity_check_start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``. An error before this point has written nothing. See `begun`."""
        RunDirectory.begun = True
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._continuation.write(Path(trainer.default_root_dir) / CONFIG_FILE)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Send the previous step to W&B: by now a validation has added its numbers."""
        for logger in trainer.loggers:
            if isinstance(logger, WandB):
                logger.send(before=trainer.global_step)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begun`. Reset the count of images."""
        RunDirectory.begun = True
        self._tested = 0

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Count the images of this rank."""
        self._tested += len(batch[1])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up the images of all ranks."""
        count = torch.tensor(self._tested, dtype=torch.float64, device=pl_module.device)
        self._tested = int(trainer.strategy.reduce(count, reduce_op="sum"))

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``test_metrics.json``, print its table, and send the numbers to W&B."""
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("test/")}
        directory = Path(trainer.default_root_dir)
        _print_table(f"test  {type(pl_module).__name__}  {directory}", metrics)
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {**self._protocol(trainer), "metrics": known, "replicates": replicates(trainer, "test")}
        write_json(directory / TEST_METRICS_FILE, record)
        send_numbers(directory)

    def _protocol(self, trainer: Trainer) -> dict[str, Any]:
        datamodule: Any = getattr(trainer, "datamodule", None)
        spec = getattr(datamodule, "spec", None)
        return {
            "model": type(trainer.lightning_module).__name__,
            "checkpoint": str(trainer.ckpt_path),
            "checkpoint_sha256": identity(Path(trainer.ckpt_path)) if trainer.ckpt_path else None,
            "data": type(datamodule).__name__,
            "data_seed": getattr(datamodule, "seed", None),
            "image_shape": list(spec.shape) if isinstance(spec, ImageSpec) else None,
            "values": spec.values if isinstance(spec, ImageSpec) else None,
            "split": "test",
            "num_images": self._tested,
            "data_fingerprint": datamodule.fingerprint("test") if hasattr(datamodule, "fingerprint") else None,
            **({"stage1_sha256": spec.checkpoint_sha256} if isinstance(spec, EncodedSpec) else {}),
            "protocols": protocols(trainer, "test"),
        }

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the run directory and its pictures."""
        directory = Path(trainer.default_root_dir)
        if trainer.fast_dev_run or not directory.is_dir():  # type: ignore[attr-defined]
            return
        print(f"run directory: {directory}")
        for panel in sorted((directory / "media").glob("*")):
            pictures = sorted(panel.glob("step_*.png"), key=lambda path: int(path.stem.split("_")[1]))
            if pictures:
                print(f"  {panel.name}: {pictures[-1]}")


def _print_table(title: str, metrics: Mapping[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
