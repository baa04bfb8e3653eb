"""A run directory, sent to W&B's server: the rows and pictures that the server lacks."""

import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from lit_vae.run.bounded import within
from lit_vae.run.files import METRICS_FILE, RECORD_FILE, read_json
from lit_vae.run.forms import fitting
from lit_vae.run.loggers import read_metrics
from lit_vae.run.panels import pictures_by_step
from lit_vae.run.wandb_logger import LEAVING, SETTINGS, SETTINGS_FILE, WandB, in_a_line, send_file
from lit_vae.run.yaml_files import read_yaml
from lit_vae.tools.record_forms import WandbSettings

ANSWERING = 60.0
"""Time limit in seconds for the server to say what it has of a run, and to have what was sent."""

SENDING, SPEED = 300.0, 100_000.0
"""Time limit of an upload: seconds, and bytes a second that it must send beyond them."""


class Lacking(NamedTuple):
    """What the server lacks: the steps of rows; pictures as ``(step of their row, panel, file)``."""

    rows: list[int]
    pictures: list[tuple[int, str, Path]]

    def __str__(self) -> str:
        return f"rows: {len(self.rows)}, pictures: {len(self.pictures)}"


class Upload(WandB):
    """The W&B logger of a run directory, after the training. It is online, and raises the first failure.

    The last row of a run that is not finished is left out: a validation may still be added to it, and W&B cannot change
    a row.

    Raises:
        ValueError: a file is damaged; it names the file.
    """

    def __init__(self, run_dir: Path) -> None:
        settings = fitting(read_yaml(run_dir / SETTINGS_FILE), WandbSettings, run_dir / SETTINGS_FILE)
        super().__init__(run_dir=str(run_dir))
        self._config, self._metrics = settings["config"], run_dir / METRICS_FILE
        self._wandb_init |= {**{name: settings.get(name) for name in SETTINGS}, "mode": "online"}
        self._wandb_init["settings"] |= {  # nothing of this machine, which is not the one that trained
            "console": "off", "x_disable_meta": True, "x_disable_stats": True, "x_save_requirements": False,
        }  # fmt: skip
        self._finished = read_json(run_dir / RECORD_FILE).get("status") == "finished"
        rows = read_metrics(self._metrics)[1] if self._metrics.exists() else []
        self._rows = rows if self._finished else rows[:-1]
        self.last_step = int(self._rows[-1]["step"]) if self._rows else -1
        drawn = pictures_by_step(run_dir).items()
        self._pictures = [(step, *one[:2]) for step, some in drawn for one in some if step <= self.last_step]

    def send_lacking(self) -> Lacking:
        """Send what the server lacks, and return what that was.

        Raises:
            TimeoutError: the server, or W&B's own process, hangs.
            Exception: W&B's own error, or what the server still lacks.
        """
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        try:
            if any(lacking := self._ask()):
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    self._send(lacking, folder)
                self._verify()
            return lacking
        finally:
            with suppress(Exception):  # W&B's process ends, and with it whatever it still does
                within(LEAVING, wandb.teardown)

    def _send(self, lacking: Lacking, folder: str) -> None:
        self._wandb_init["dir"] = folder
        self.log_hyperparams(self._config)
        run, on_server = self.experiment, self._sent
        for step, panel, path in lacking.pictures:
            if step <= on_server:  # the row is there, and its file is not
                send_file(run, panel, path, step)
        self.catch_up(self._rows)
        self.send()
        size = sum(path.stat().st_size for path in (self._metrics, *(path for _, _, path in lacking.pictures)))
        self._finishing = SENDING + size // SPEED
        self.finalize("success" if self._finished else "failed")

    def _verify(self) -> None:
        """Wait until the server has all: W&B ends a run without an error where an upload was refused."""
        deadline = time.monotonic() + ANSWERING
        while any(lacking := self._ask()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server still lacks some of it ({lacking})")
            time.sleep(1.0)

    def _ask(self) -> Lacking:
        last_step, files = within(ANSWERING, self._on_server)
        rows = [int(row["step"]) for row in self._rows if int(row["step"]) > last_step]
        prefixes = {name.rpartition("_")[0] for name in files}  # W&B adds a hash of the content to the name
        return Lacking(rows, [one for one in self._pictures if f"media/images/{one[1]}_{one[0]}" not in prefixes])

    def _on_server(self) -> tuple[int, list[str]]:
        """The last step that the server has, -1 if it has none, and the names of the files that have arrived."""
        import wandb
        from wandb.errors import CommError

        parts = (self._wandb_init["entity"], self._wandb_init["project"], self.version)
        try:
            run = wandb.Api(timeout=int(ANSWERING / 3)).run("/".join(filter(None, parts)))
            return int(run.lastHistoryStep), [file.name for file in run.files(per_page=1000) if file.size]
        except (CommError, ValueError) as error:
            if "could not find" in str(error).lower():
                return -1, []
            raise

    def _go_offline(self, error: Exception) -> NoReturn:
        raise error

    def _give_up(self, what: str, error: Exception) -> NoReturn:
        kind = TimeoutError if isinstance(error, TimeoutError) else RuntimeError
        raise kind(f"{what}: {in_a_line(error)}") from error
