"""A run directory, sent to W&B's server: the rows, pictures and numbers that the server lacks."""

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lit_vae.run.bounded import within
from lit_vae.run.files import METRICS_FILE
from lit_vae.run.panels import key_of_parts, parts_of, pictures_by_step
from lit_vae.run.wandb_logger import LEAVING
from lit_vae.run.wandb_reopened import Reopened

ANSWERING = 60.0
"""Time limit in seconds for the server to say what it has of a run, and to have what was sent."""

SENDING, SPEED = 300.0, 100_000.0
"""Time limit of an upload: seconds, and bytes a second that it must send beyond them."""


class Lacking(NamedTuple):
    """What the server lacks: the steps of rows; pictures as ``(step of their row, panel, file)``; numbers of tests."""

    rows: list[int]
    pictures: list[tuple[int, str, Path]]
    numbers: list[str]

    def __str__(self) -> str:
        return f"rows: {len(self.rows)}, pictures: {len(self.pictures)}, numbers: {len(self.numbers)}"


class Upload(Reopened):
    """The W&B run of a directory, online.

    Attributes:
        is_empty: whether there is nothing to upload.
        extent: up to which step it goes, in words.

    Raises:
        ValueError: a file is damaged; it names the file.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir)
        self._wandb_init["mode"] = "online"
        self._wandb_init["settings"]["silent"] = True
        last_step = int(self._rows[-1]["step"]) if self._rows else -1
        self.is_empty = not self._rows and not self._numbers
        self.extent = f" up to step {last_step}" if self._rows else ""
        drawn = pictures_by_step(run_dir).items()
        self._pictures = [(step, *one[:2]) for step, some in drawn for one in some if step <= last_step]
        self._awaited = {picture: _files_of(*picture) for picture in self._pictures}
        self._files: list[tuple[int, str, Path]] = []

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
                self._files = lacking.pictures
                paths = [self._run_dir / METRICS_FILE, *(path for _, _, path in lacking.pictures)]
                size = sum(path.stat().st_size for path in paths if path.exists())
                self._finishing = SENDING + size // SPEED
                self.send_all()
                self._verify()
            return lacking
        finally:
            with suppress(Exception):  # W&B's process ends, and with it whatever it still does
                within(LEAVING, wandb.teardown)

    def _send_contents(self, run: Any) -> None:
        on_server = self._sent
        for step, panel, path in self._files:
            if step <= on_server:  # the row is there, and its file is not
                self.log_image(panel, [str(path)], step + 1)
        super()._send_contents(run)

    def _verify(self) -> None:
        """Wait until the server has all: W&B ends a run without an error where an upload was refused."""
        deadline = time.monotonic() + ANSWERING
        while any(lacking := self._ask()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server still lacks some of it ({lacking})")
            time.sleep(1.0)

    def _ask(self) -> Lacking:
        last_step, numbers, files = within(ANSWERING, self._on_server)
        rows = [int(row["step"]) for row in self._rows if int(row["step"]) > last_step]
        arrived = Counter(name.rpartition("_")[0] for name in files)  # W&B adds a hash of the content to the name
        pictures = [one for one, awaited in self._awaited.items() if not awaited <= arrived]
        return Lacking(rows, pictures, [name for name, value in self._numbers.items() if numbers.get(name) != value])

    def _on_server(self) -> tuple[int, dict[str, Any], list[str]]:
        """What the server has: the last step (-1 if none), the summary, the names of the files that have arrived."""
        import wandb
        from wandb.errors import CommError

        parts = (self._wandb_init["entity"], self._wandb_init["project"], self.version)
        try:
            run = wandb.Api(timeout=int(ANSWERING / 3)).run("/".join(filter(None, parts)))
            files = [file.name for file in run.files(per_page=1000) if file.size]
            return int(run.lastHistoryStep), dict(run.summary_metrics), files
        except (CommError, ValueError) as error:
            if "could not find" in str(error).lower():
                return -1, {}, []
            raise

    def _go_offline(self, error: Exception) -> NoReturn:
        raise error


def _files_of(step: int, panel: str, picture: Path) -> Counter[str]:
    """The files that W&B makes of a picture: how many, by the beginnings of their names. Equal parts are one file."""
    parts = {part.tobytes() for part in parts_of(picture)}
    names = {panel: 1, key_of_parts(panel): len(parts)}
    return Counter({f"media/images/{name}_{step}": count for name, count in names.items()})
