"""The W&B run of a training that has ended: opened again, so that numbers which are measured later are in it, too."""

import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.utilities import rank_zero_only

from lit_vae.run.files import EVALUATION_FILE, METRICS_FILE, RECORD_FILE, TEST_METRICS_FILE, read_json
from lit_vae.run.forms import Form, fitting
from lit_vae.run.lock import LOCK_FILE, locked
from lit_vae.run.loggers import read_metrics
from lit_vae.run.wandb_logger import WandB, in_a_line
from lit_vae.run.wandb_panels import PANELS_FILE, panels_of
from lit_vae.run.wandb_settings import SETTINGS, SETTINGS_FILE, wandb_mode
from lit_vae.run.yaml_files import read_yaml

SENDING = 300.0
"""Time limit in seconds for tables and pictures."""


class WandbSettings(Form):
    """``wandb/settings.yaml``."""

    project: str
    entity: str | None = None
    name: str | None = None
    group: str | None = None
    tags: list[str] | None = None
    notes: str | None = None
    job_type: str | None = None
    config: dict[str, Any]


class Reopened(WandB):
    """The W&B run of a directory, after the training or of a comparison. It sends what lies there; a failure is raised.

    The last row of a training that is not finished is left out: a validation may still be added to it, and W&B cannot
    change a row.

    Raises:
        ValueError: a file is damaged; it names the file.
    """

    def __init__(self, run_dir: Path) -> None:
        settings = fitting(read_yaml(run_dir / SETTINGS_FILE), WandbSettings, run_dir / SETTINGS_FILE)
        super().__init__(run_dir=str(run_dir))
        self._config = settings["config"]
        self._wandb_init |= {name: settings.get(name) for name in SETTINGS}
        self._wandb_init["settings"] |= {  # nothing of this process, which is not the training
            "console": "off", "x_disable_meta": True, "x_disable_stats": True, "x_save_requirements": False,
        }  # fmt: skip
        self._finished = read_json(run_dir / RECORD_FILE).get("status") == "finished"
        metrics, self._panels = run_dir / METRICS_FILE, run_dir / PANELS_FILE
        rows = read_metrics(metrics)[1] if metrics.exists() and not self._panels.exists() else []
        self._rows = rows if self._finished else rows[:-1]
        self._numbers: dict[str, Any] = {**numbers_of(run_dir)}
        if self._panels.exists():
            self._finished, self._finishing = True, SENDING
            self._numbers["compare/sha256"] = hashlib.sha256(self._panels.read_bytes()).hexdigest()

    def send_all(self) -> None:
        """Send what W&B lacks, and end W&B's run.

        Raises:
            TimeoutError: the server, or W&B's own process, hangs.
            RuntimeError: W&B's own error.
        """
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if self._wandb_init["mode"] == "online":  # nobody needs W&B's own copy
                self._wandb_init["dir"] = folder
            self.log_hyperparams(self._config or {})
            run = self.experiment
            with _staging(Path(self._wandb_init["dir"]) / "wandb"):
                self._send_contents(run)
            self.finalize("success" if self._finished else "failed")

    def _send_contents(self, run: Any) -> None:
        """Send rows, pictures, panels, and the numbers of tests."""
        self.catch_up(self._rows)
        self.send()
        if self._panels.exists():
            self._attempt("sending panels", lambda: run.log(panels_of(self._run_dir)), SENDING)
        self._attempt("sending numbers", lambda: run.summary.update(self._numbers))

    def _go_offline(self, error: Exception) -> None:
        self._wandb_init["dir"] = str(self._run_dir)
        super()._go_offline(error)

    def _give_up(self, what: str, error: Exception) -> NoReturn:
        kind = TimeoutError if isinstance(error, TimeoutError) else RuntimeError
        raise kind(f"{what}: {in_a_line(error)}") from error


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """W&B keeps the pictures of tables there until they are uploaded, and not in the user's home."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]
        os.environ |= {} if before is None else {"WANDB_DATA_DIR": before}


def numbers_of(run_dir: Path) -> dict[str, float]:
    """The numbers of ``lightning test`` and ``lit-vae evaluate``; fitted priors end in ``_gmm`` and so on."""
    evaluation = read_json(run_dir / EVALUATION_FILE)
    measured = (
        (read_json(run_dir / TEST_METRICS_FILE), ""),
        *((of, "" if prior == "model" else f"_{prior}") for prior, of in evaluation.items()),
    )
    found = {f"{name}{end}": value for of, end in measured for name, value in ((of or {}).get("metrics") or {}).items()}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and math.isfinite(value)}


@rank_zero_only
def send_numbers(run_dir: Path) -> None:
    """Put the numbers of tests into the summary of the W&B run of a directory, if it has one.

    Whatever fails is one warning: the numbers are in their file. A run that is being trained is left alone, because two
    processes cannot write to one W&B run.
    """
    if wandb_mode() == "disabled" or not (run_dir / SETTINGS_FILE).is_file():
        return
    try:
        with locked(run_dir / LOCK_FILE):
            Reopened(run_dir).send_all()
    except Exception as error:
        warnings.warn(
            f"W&B did not get the numbers ({in_a_line(error)}). Send them later with: lit-vae sync {run_dir}",
            stacklevel=2,
        )
