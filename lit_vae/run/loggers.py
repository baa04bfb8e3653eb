"""The loggers of a run. All write below the run directory, and a resumed run continues their files.

The command line sets ``run_dir``; a configuration leaves it out.
"""

import csv
import inspect
import os
import pkgutil
import warnings
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_vae.ranks import rank
from lit_vae.run.files import METRICS_FILE, DirectoryMoved, refuse_moved, replacing
from lit_vae.run.wandb_logger import WandB

__all__ = ["MetricsCSV", "TensorBoard", "WandB", "place_loggers"]


DEFAULT = ({"class_path": "lit_vae.run.loggers.MetricsCSV"}, {"class_path": "lit_vae.run.loggers.WandB"})


def place_loggers(trainer: Any, run_dir: Path) -> None:
    """Give the run directory to every logger of a configuration that takes one; add `MetricsCSV` if it is left out.

    ``trainer`` is the section of the configuration; its ``logger`` is set.
    """
    if trainer.logger in (None, True):
        trainer.logger = [dict(logger) for logger in DEFAULT]
    # metrics.csv is part of a run: a resumed one, `compare` and W&B after a failure read it
    loggers = [logger for logger in trainer.logger or [] if not _is_off(logger)]
    if not any(issubclass(_class_of(logger), MetricsCSV) for logger in loggers):
        loggers.insert(0, dict(DEFAULT[0]))
    for logger in loggers:
        if "run_dir" in inspect.signature(_class_of(logger)).parameters:
            logger["init_args"] = {**(logger.get("init_args") or {}), "run_dir": str(run_dir)}
    trainer.logger = loggers


def _class_of(logger: Any) -> type:
    return pkgutil.resolve_name(logger["class_path"])


def _is_off(logger: Any) -> bool:
    return os.environ.get("WANDB_MODE") == "disabled" and issubclass(_class_of(logger), WandB)


class MetricsCSV(Logger):
    """``metrics.csv``: one row for each logged step, one column for each name.

    A resumed run drops the rows after its checkpoint (`rewind`) and appends, so no step is repeated.
    """

    def __init__(self, run_dir: str = "") -> None:
        super().__init__()
        self._path = Path(run_dir) / METRICS_FILE
        self._rows: list[dict[str, Any]] | None = None
        self._columns: list[str] = []
        self._on_disk = 0  # how many rows are in the file already; 0: write the whole file again

    @property
    def name(self) -> str:
        """Nothing: the run directory is the name."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: the run directory is the version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return str(self._path.parent)

    def _read(self) -> list[dict[str, Any]]:
        if self._rows is None:
            self._rows, self._columns, self._on_disk = [], [], 0
            if self._path.exists():
                self._columns, self._rows, damaged = read_metrics(self._path)
                self._on_disk = 0 if damaged else len(self._rows)
        return self._rows

    def rows(self) -> list[dict[str, Any]]:
        """The rows: values by name; those read from the file are text."""
        return list(self._read())

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows of ``step`` and later, where training resumes."""
        if step == 0:
            self._rows, self._columns, self._on_disk = [], [], 0  # whatever the file holds
            return
        rows = [row for row in self._read() if int(row["step"]) < step]
        if len(rows) != len(self._read()):
            self._rows, self._on_disk = rows, 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add numbers to the row of ``step``."""
        rows = self._read()
        step = 0 if step is None else step
        values = {"step": step, **{k: v for k, v in sorted(metrics.items()) if k != "epoch"}}
        if "epoch" in metrics:
            values["epoch"] = int(metrics["epoch"])
        order = dict.fromkeys(("step", "epoch", *values))
        new = [name for name in order if name in values and name not in self._columns]
        if new:
            self._columns += new
            self._on_disk = 0
        if rows and int(rows[-1]["step"]) == step:
            rows[-1] = {**rows[-1], **values}
            if self._on_disk == len(rows):
                self._on_disk = 0
        else:
            rows.append(values)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Append new rows. If a column or an old row has changed, write the whole file again, atomically."""
        rows = self._read()
        if self._on_disk == len(rows):
            return
        refuse_moved(self._path)
        if self._on_disk > 0 and self._path.exists():
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerows(rows[self._on_disk :])
        else:
            with replacing(self._path) as partial, partial.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)
        self._on_disk = len(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the remaining rows, unless the run directory was moved."""
        if self._rows:
            with suppress(DirectoryMoved):
                self.save()

    def synced(self, before: int) -> dict[str, Any]:
        """Flush the file to the disk, and return what a checkpoint of that step records about it."""
        if rank() == 0 and self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        return {"rows": self._count(before), "columns": list(self._columns)}

    @rank_zero_only
    def expect(self, known: Mapping[str, Any], before: int) -> None:
        """Compare the file with what a checkpoint recorded about it. A missing file is not an error: somebody moved it.

        Raises:
            ValueError: columns are missing.
        """
        if not self._path.exists():
            return
        if missing := set(known.get("columns", ())) - set(self._columns):
            raise _damaged_header(self._path, ", ".join(sorted(missing)) + " among others")
        if (lost := known.get("rows", 0) - self._count(before)) > 0:
            warnings.warn(f"{self._path}: rows before step {before} are missing: {lost}.", stacklevel=2)

    def _count(self, before: int) -> int:
        return sum(int(row["step"]) < before for row in self._read())


def read_metrics(path: Path) -> tuple[list[str], list[dict[str, Any]], int]:
    """Read a ``metrics.csv``: columns, rows, and the number of damaged rows, which are left out with a warning.

    After a power failure, the last row may be incomplete, or the file may end in NULs.

    Raises:
        ValueError: the header is damaged, so no row can be read.
    """
    content = path.read_bytes().decode(errors="replace").replace("\0", _UNREADABLE)
    whole, _, torn = content.rpartition("\n")
    header, *lines = [next(csv.reader([line.rstrip("\r")]), []) for line in whole.split("\n")]
    if header[:1] != ["step"] or len(set(header)) < len(header) or "" in header or _UNREADABLE in "".join(header):
        raise _damaged_header(path, "step,epoch,...")
    rows = [line for line in lines if len(line) == len(header) and _is_row(line)]
    damaged = len(lines) - len(rows) + bool(torn)
    if damaged:
        warnings.warn(
            f"{path}: {damaged} damaged row{'s' * (damaged > 1)} left out, {len(rows)} read. A run that resumes from an"
            " earlier checkpoint writes them again.",
            stacklevel=2,
        )
    return header, [{k: v for k, v in zip(header, row, strict=True) if v} for row in rows], damaged


_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def _damaged_header(path: Path, expected: str) -> ValueError:
    return ValueError(
        f"{path}: its first line is damaged, or the file is empty: expected {expected}. Repair it, or move the file"
        " away: the run then continues without the earlier rows."
    )


def _is_row(values: list[str]) -> bool:
    try:
        int(values[0])
        [float(value) for value in values[1:] if value]
    except ValueError:
        return False
    return True


class TensorBoard(TensorBoardLogger):
    """TensorBoard event files in ``RUN/tensorboard``."""

    def __init__(self, run_dir: str = "") -> None:
        super().__init__(save_dir=run_dir or ".", name="", version="tensorboard", default_hp_metric=False)
