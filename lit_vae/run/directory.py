"""The run directory: where it is, what it holds, and who may write into it."""

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

from lit_vae.codes import CodeSpec
from lit_vae.images import ImageSpec
from lit_vae.models.module import Model
from lit_vae.run.checkpoints import CHECKPOINTS
from lit_vae.run.continuing import CONFIG_FILE, CONFIG_KEY, Continuation, is_of
from lit_vae.run.files import METRICS_FILE, replacing, write_json
from lit_vae.run.loading import identity
from lit_vae.run.loggers import MetricsCSV, WandB
from lit_vae.run.protocols import protocols

__all__ = ["CONFIG_FILE", "TEST_METRICS_FILE", "RunDirectory", "choose_run_dir", "refuse_occupied"]

TEST_METRICS_FILE = "test_metrics.json"


def choose_run_dir(run_dir: str | None, config_files: list[Path], ckpt_path: str | None, fit: bool) -> Path:
    """Where a command writes.

    ``run_dir`` if given; else the run that ``ckpt_path`` lies in; for ``last``, ``best`` and ``auto`` the folder of the
    given ``config.yaml``; else a new ``runs/<config name>/<time or SLURM job id>``.

    Raises:
        ValueError: ``--ckpt_path last`` without a run to take it from, or several processes that could not agree on a
            new name.
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
            " go on with."
        )
    if ckpt_path is not None and Path(ckpt_path).parent.name == CHECKPOINTS and not fit:
        return Path(ckpt_path).parent.parent
    return _usable(f"runs/{_config_name(config_files)}/{_run_name()}")


def _usable(run_dir: str) -> Path:
    placeholder = re.search(r"%\d*[AaJjNnstux](?![A-Za-z])", run_dir)
    absolute = Path(run_dir).absolute()
    too_long = [part for part in (*absolute.parts, str(absolute)) if len(os.fsencode(part)) > (255, 4000)["/" in part]]
    problems = (
        (not run_dir.strip(), "it is empty. Leave it out for a new directory in runs, or give one."),
        (any(ord(c) < 32 for c in run_dir), "it has control characters. Give another name."),
        (run_dir.startswith("~"), "no user of this machine is called so. Give the path without ~."),
        (
            placeholder,
            f"{placeholder and placeholder.group()} has a meaning in #SBATCH --output alone. Leave --run_dir out, and"
            " the run is named after the job; or write $SLURM_JOB_ID.",
        ),
        (too_long, "its names are longer than the 255 bytes that file systems take. Give a shorter one."),
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
    """Time of the start or SLURM job id; processes that Lightning starts inherit it through the environment."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if "SLURM_JOB_ID" in os.environ:
        return os.environ["SLURM_JOB_ID"]
    if "LIT_VAE_RUN_NAME" not in os.environ:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("--run_dir: processes started by torchrun cannot agree on a new name. Give --run_dir.")
        os.environ["LIT_VAE_RUN_NAME"] = time.strftime("%Y%m%d-%H%M%S")
    return os.environ["LIT_VAE_RUN_NAME"]


def refuse_occupied(run_dir: Path, checkpoint: str | None, ckpt_path: str | None) -> None:
    """Train in the directory of a run only to go on with that run, or where it came to nothing.

    Args:
        run_dir: where training would write.
        checkpoint: that it would go on from.
        ckpt_path: as it was asked for.

    Raises:
        ValueError: the run that is there would be lost, or mixed with another.
    """
    if ckpt_path == "auto" or (checkpoint is not None and is_of(Path(checkpoint), run_dir)):
        return
    there = f"--run_dir {run_dir} already holds a run"
    if any((run_dir / CHECKPOINTS).glob("*.ckpt")):
        other = "" if checkpoint is None else f", and --ckpt_path {checkpoint} is no checkpoint of it"
        raise ValueError(
            f"{there}{other}. Add --ckpt_path last to go on with it, or give another directory; nothing was written."
        )
    metrics = run_dir / METRICS_FILE
    if metrics.is_file() and metrics.read_bytes().count(b"\n") > 1:
        raise ValueError(
            f"{there}, which came to no checkpoint. Add --ckpt_path auto to start it anew, without what it logged, or"
            " give another directory; nothing was written."
        )


class RunDirectory(Callback):
    """Writes ``config.yaml`` when a run starts and ``test_metrics.json`` after a test; names the pictures at the end.

    Args:
        continuation: the complete configuration, which starts the run again, and what has changed in it.
        resumed: whether the run goes on from a checkpoint.
    """

    begun = False
    """Whether training, or an evaluation, is under way in this process: errors are then ours and not the user's."""

    def __init__(self, continuation: Continuation, resumed: bool = False) -> None:
        self._continuation = continuation
        self._resumed = resumed
        self._tested = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write what the data module says of its files; begin the curves anew, unless they are gone on with."""
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for name, text in getattr(getattr(trainer, "datamodule", None), "run_files", {}).items():
            with replacing(Path(trainer.default_root_dir) / name) as partial:
                partial.write_text(text)
        if stage == "fit":
            for logger in () if self._resumed else trainer.loggers:
                if isinstance(logger, MetricsCSV):  # of a start that was killed before it had a checkpoint
                    logger.rewind(0)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the configuration, and the numbers of a step whose checkpoint is written before its row is."""
        checkpoint[CONFIG_KEY] = self._continuation.config
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                checkpoint[METRICS_FILE] = logger.synced(before=trainer.global_step - 1)
        step, values = getattr(pl_module, "last_logged", (-1, {}))
        if step == trainer.global_step - 1:
            row = {name: float(torch.as_tensor(value, dtype=torch.float32)) for name, value in values.items()}
            checkpoint["last_logged"] = {"step": step, "epoch": trainer.current_epoch, "values": row}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop what was logged after the checkpoint, and add its own row if that was still to come.

        Where training goes on, the configuration holds in the place of what the checkpoint says.
        """
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
                logger.catch_up(rows)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begun`."""
        RunDirectory.begun = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``config.yaml``: what was found wrong until now has changed nothing. See `begun`."""
        RunDirectory.begun = True
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._continuation.write(Path(trainer.default_root_dir) / CONFIG_FILE)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Send W&B the step that is over: a validation that followed it has added its numbers."""
        for logger in trainer.loggers:
            if isinstance(logger, WandB):
                logger.send(before=trainer.global_step)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begun`; count anew."""
        RunDirectory.begun = True
        self._tested = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See `begun`."""
        RunDirectory.begun = True

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of this rank."""
        self._tested += len(batch[1])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up the images of all ranks."""
        count = torch.tensor(self._tested, dtype=torch.float64, device=pl_module.device)
        self._tested = int(trainer.strategy.reduce(count, reduce_op="sum"))

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``test_metrics.json`` and print its table."""
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items()) if k.startswith("test/")}
        directory = Path(trainer.default_root_dir)
        _print_table(f"test  {type(pl_module).__name__}  {directory}", metrics)
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        write_json(directory / TEST_METRICS_FILE, {**self._protocol(trainer), "metrics": known})

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
            **({"stage1_sha256": spec.checkpoint_sha256} if isinstance(spec, CodeSpec) else {}),
            "protocols": protocols(trainer, "test"),
        }

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the run directory and its pictures."""
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
