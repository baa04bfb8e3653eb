"""Loggers of a run. All write below the run directory, and a resumed run goes on in what is there.

``run_dir`` is given by the command line; a configuration leaves it out.
"""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_vae.run.files import replacing

METRICS_FILE = "metrics.csv"


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


class WandB(WandbLogger):
    """Weights & Biases: online where the user is logged in or ``WANDB_MODE`` says so, else offline; never a prompt.

    The id of the run, ``WANDB_RUN_ID`` (an agent of a sweep sets it) or one of its own, is kept in
    ``RUN/wandb/run_id``, so that a resumed run is the same W&B run. ``wandb sync RUN/wandb/offline-run-*`` uploads an
    offline one later.

    Args:
        project: W&B project.
        group: runs that belong together.
        tags: labels of the run.
        run_dir: given by the command line.
    """

    def __init__(
        self, project: str = "lit_vae", group: str | None = None, tags: list[str] | None = None, run_dir: str = ""
    ) -> None:
        mode = wandb_mode()
        directory = Path(run_dir or ".")
        id_file = directory / "wandb" / "run_id"
        new_id = os.environ.get("WANDB_RUN_ID") or os.urandom(4).hex()
        run_id = id_file.read_text().strip() if id_file.exists() else new_id
        if getattr(rank_zero_only, "rank", 0) == 0 and mode != "disabled":
            id_file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), id_file.open("x") as file:  # two that start at once: the first one's
                file.write(run_id + "\n")
        super().__init__(
            project=project,
            name="/".join(directory.parts[-2:]) or None,
            save_dir=str(directory),
            id=run_id,
            resume="allow",
            group=group,
            tags=tags,
            mode=mode,
        )


def wandb_mode() -> str:
    """``WANDB_MODE`` if set; ``online`` with an API key (variable or ``~/.netrc``); else ``offline``."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    import netrc

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return "online" if netrc.netrc().authenticators(host) else "offline"
    except (FileNotFoundError, netrc.NetrcParseError):
        return "offline"


class TensorBoard(TensorBoardLogger):
    """TensorBoard event files in ``RUN/tensorboard``."""

    def __init__(self, run_dir: str = "") -> None:
        super().__init__(save_dir=run_dir or ".", name="", version="tensorboard", default_hp_metric=False)
