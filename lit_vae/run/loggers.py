"""Loggers of a run. All write below the run directory, and a resumed run goes on in what is there.

``run_dir`` is given by the command line; a configuration leaves it out.
"""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_vae.run.files import METRICS_FILE, replacing
from lit_vae.run.wandb_logger import WandB, wandb_mode

__all__ = ["METRICS_FILE", "MetricsCSV", "TensorBoard", "WandB", "wandb_mode"]


class MetricsCSV(Logger):
    """``metrics.csv``: one row for each step at which something was logged, one column for each name.

    A resumed run drops the rows after its checkpoint (`rewind`) and appends: no step is there twice.
    """

    def __init__(self, run_dir: str = "") -> None:
        super().__init__()
        self._path = Path(run_dir) / METRICS_FILE
        self._rows: list[dict[str, Any]] | None = None
        self._columns: list[str] = []
        self._on_disk = 0  # how many rows stand in the file as they are here; 0: the file is written anew

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
            self._rows = []
            if self._path.exists():
                with self._path.open(newline="") as file:
                    reader = csv.DictReader(file)
                    self._rows = [{k: v for k, v in row.items() if v} for row in reader]
                    self._columns = list(reader.fieldnames or [])
            self._on_disk = len(self._rows)
        return self._rows

    def rows(self) -> list[dict[str, Any]]:
        """What was logged: values by name, those read from the file as text."""
        return list(self._read())

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Forget what was logged at ``step`` and later: training resumes there."""
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
        """Nothing: they stand in ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Append what is new, or write the whole file anew (atomically) when a column or an old row changed."""
        rows = self._read()
        if self._on_disk == len(rows):
            return
        if self._on_disk > 0:
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
        """Write what is left."""
        if self._rows:
            self.save()


class TensorBoard(TensorBoardLogger):
    """TensorBoard event files in ``RUN/tensorboard``."""

    def __init__(self, run_dir: str = "") -> None:
        super().__init__(save_dir=run_dir or ".", name="", version="tensorboard", default_hp_metric=False)
