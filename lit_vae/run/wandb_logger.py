"""Weights & Biases, which may fail, hang or be killed without harm to a run, and has each step of a run once."""

import json
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lit_vae.run.bounded import within
from lit_vae.run.files import METRICS_FILE, replacing
from lit_vae.run.panels import caption_of, key_of_parts, parts_of, pictures_by_step
from lit_vae.run.wandb_settings import ID_FILE, SETTINGS, SETTINGS_FILE, group_of, tags_of, wandb_mode, wandb_project

STARTING, LOGGING, FINISHING, LEAVING = 90.0, 30.0, 60.0, 5.0
"""Time limits of W&B in seconds: to start a run, to take a row, to finish the run, and to exit after a failure."""

UPLOADING = 600.0
"""How long in seconds a picture may wait for its upload: a killed process can have lost those of that time."""

STEP = "trainer/global_step"
"""Lightning's name for the step of a row. W&B's own step, ``_step``, has the same value."""


class WandB(WandbLogger):
    """Weights & Biases: online where the user is logged in or ``WANDB_MODE`` says so, else offline; never a prompt.

    The id of the run is ``WANDB_RUN_ID`` (an agent of a sweep sets it) or random. ``RUN/wandb/run_id`` keeps it, so a
    resumed run is the same W&B run.

    W&B gets one row a step, when the step is over, and cannot change a row later. A resumed run repeats its steps bit
    by bit, so it sends only the rows that W&B lacks. Online, the server says what it has. Offline, each start begins a
    new folder ``RUN/wandb/offline-run-*`` and sends the whole run, so the last folder is complete. ``lit-vae sync RUN``
    does not read these folders: it uploads ``metrics.csv`` and ``media``.

    No failure of W&B ends a training or delays it for long: the first one is a warning, and training continues without
    W&B.

    W&B's own variables hold where an argument is left out: ``WANDB_PROJECT``, ``WANDB_NAME``, ``WANDB_ENTITY``,
    ``WANDB_RUN_GROUP``, ``WANDB_TAGS``, and what no argument sets (``WANDB_NOTES``, ``WANDB_JOB_TYPE``).

    Args:
        project: W&B project; null: ``lit_vae``.
        group: runs that belong together; null: the folders between ``runs`` and the run, such as ``compare/mnist``.
        tags: labels of the run, besides those of its configuration: the family and the parts of its objective.
        name: of the run; null: the last two folders of the run directory.
        entity: user or team that the project belongs to.
        run_dir: given by the command line.
    """

    def __init__(
        self,
        project: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        name: str | None = None,
        entity: str | None = None,
        run_dir: str = "",
    ) -> None:
        mode = wandb_mode()
        self._run_dir = Path(run_dir or ".")
        id_file = self._run_dir / ID_FILE
        run_id, failure = os.environ.get("WANDB_RUN_ID") or os.urandom(4).hex(), None
        try:
            if getattr(rank_zero_only, "rank", 0) == 0 and mode != "disabled":
                id_file.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError), id_file.open("x") as file:  # two that start at once: the first one's
                    file.write(run_id + "\n")
            run_id = id_file.read_text().strip() if id_file.exists() else run_id
        except OSError as error:
            failure = error
        variable = os.environ.get
        super().__init__(
            project=project or wandb_project(),
            name=name or variable("WANDB_NAME") or "/".join(self._run_dir.parts[-2:]) or None,
            save_dir=str(self._run_dir),
            id=run_id,
            resume="allow",
            group=group or variable("WANDB_RUN_GROUP") or group_of(self._run_dir),
            tags=variable("WANDB_TAGS", "").split(",") if tags is None and variable("WANDB_TAGS") else tags,
            entity=entity or variable("WANDB_ENTITY"),
            notes=variable("WANDB_NOTES"),
            job_type=variable("WANDB_JOB_TYPE"),
            mode=mode,
            # offline, W&B would advise `wandb sync`
            settings={"quiet": True, "silent": mode == "offline"}
            | ({} if "WANDB_INIT_TIMEOUT" in os.environ else {"init_timeout": STARTING / 3}),
        )
        self._wandb_init.pop("anonymous", None)  # Lightning's; W&B warns of it
        self._config: dict[str, Any] | None = None
        self._finishing = FINISHING
        self._lost = False  # whether it has failed
        self._row: dict[str, Any] = {}
        self._with_parts: dict[str, str] = {}  # pictures of the row, by the keys of their parts
        self._row_step = self._sent = -1  # of the row that is being filled, and of the last one that W&B has
        if failure is not None:
            self._give_up("making its directory", failure)

    def describe(self, config: dict[str, Any]) -> None:
        """Give it the complete configuration of the run, before W&B is asked for."""
        self._config = config
        self._wandb_init["tags"] = list(dict.fromkeys([*(self._wandb_init["tags"] or ()), *tags_of(config)]))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run, begun when first asked for; something that does nothing where W&B has failed."""
        if self._experiment is None and not self._lost:
            self._attempt("starting", self._start, STARTING)
        return DummyLogger().experiment if self._lost else self._experiment

    def _start(self) -> None:
        try:
            run = super().experiment
        except Exception as error:
            if self._wandb_init["mode"] != "online":
                raise
            self._go_offline(error)
            run = super().experiment
        self._sent = max(self._sent, run.starting_step - 1)

    def _go_offline(self, error: Exception) -> None:
        import wandb

        warnings.warn(
            f"W&B cannot be reached ({in_a_line(error)}): it is offline now, and lit-vae sync {self._run_dir} uploads"
            " the run later.",
            stacklevel=3,
        )
        self._wandb_init["mode"] = "offline"
        self._wandb_init["settings"]["silent"] = True
        wandb.teardown()  # or the id of the run counts as in use

    def _attempt(self, what: str, function: Callable[[], Any], seconds: float = LOGGING) -> None:
        """Do something with W&B, or give W&B up."""
        if self._lost:
            return
        try:
            within(seconds, function)
        except Exception as error:
            self._give_up(what, error)

    def _give_up(self, what: str, error: Exception) -> None:
        self._lost, self._row = True, {}
        warnings.warn(
            f"W&B failed at {what} ({in_a_line(error)}); training goes on without it. All numbers are in"
            f" {self._run_dir / METRICS_FILE}, the pictures beside it; lit-vae sync {self._run_dir} uploads them.",
            stacklevel=3,
        )
        if wandb := sys.modules.get("wandb"):
            with suppress(Exception):  # or it would keep the process from ending
                within(LEAVING, wandb.teardown)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add to the row of ``step``, by default the one that is being filled; nothing where W&B has that step."""
        _ = self.experiment  # which knows what it has
        step = max(self._row_step, 0) if step is None else step
        if step > self._row_step:
            self.send()
            self._row_step = step
        if self._row_step > self._sent and not self._lost:
            self._row |= metrics

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Add pictures that were drawn after ``step`` steps, to the row of the last of them, which is ``step - 1``.

        If W&B has that row, the files are sent again: a killed process may have sent the row and not its files. The
        parts of a picture's file are added under a key of their own.
        """
        run = self.experiment
        files = [image for image in images if isinstance(image, str)]
        row = None if step is None else max(step - 1, 0)
        if row is None or row > self._sent:
            self._attempt("keeping a picture", lambda: super(WandB, self).log_image(key, images, row, **kwargs))
            self._with_parts |= {key_of_parts(key): file for file in files}
            return
        for file in files:
            self._attempt("sending a picture again", partial(_send_file, run, key, file, row))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Send the configuration, and keep it for an upload: the complete one, if it has been given."""
        given = self._config or (params if isinstance(params, dict) else vars(params))
        plain = json.loads(json.dumps(given, skipkeys=True, default=str))
        settings = {name: self._wandb_init[name] for name in SETTINGS}
        with suppress(OSError), replacing(self._run_dir / SETTINGS_FILE) as partial:  # training meets the error, too
            partial.write_text(yaml.safe_dump({**settings, "config": plain}, sort_keys=False))
        _ = self.experiment
        self._attempt("sending the configuration", lambda: super(WandB, self).log_hyperparams(given))

    @rank_zero_only
    def send(self, before: int | None = None) -> None:
        """Send the row that is being filled, if its step lies ``before``."""
        if not self._row or (before is not None and self._row_step >= before):
            return
        row, self._row, self._sent = {**self._row, STEP: self._row_step}, {}, self._row_step
        files, self._with_parts = self._with_parts, {}
        step, run = self._row_step, self.experiment

        def log() -> None:
            with ExitStack() as temporary:
                parts = {key: shown for key, file in files.items() if (shown := _parts(file, temporary))}
                run.log({}, step=step, commit=False)  # or files have the step after the last row in their names
                run.log(row | parts, step=step, commit=True)

        self._attempt(f"logging step {step}", log)

    @rank_zero_only
    def catch_up(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send the rows of ``metrics.csv`` that W&B lacks, and the pictures up to the last of them.

        W&B lacks what its process had in memory when it was killed, and everything since a failure.
        """
        _ = self.experiment
        values = {int(row["step"]): row for row in rows}
        pictures = pictures_by_step(self._run_dir)
        last = max(values, default=-1)
        for step in sorted(step for step in values.keys() | pictures.keys() if self._sent < step <= last):
            for panel, path, taken in pictures.get(step, ()):
                self.log_image(panel, [str(path)], taken, caption=[caption_of(path)])
            if row := values.get(step):
                numbers = {name: float(value) for name, value in row.items() if name not in ("step", "epoch")}
                self.log_metrics({**numbers, **({"epoch": int(row["epoch"])} if "epoch" in row else {})}, step)

    @rank_zero_only
    def resend_last_pictures(self) -> None:
        """Send the files of the last pictures again: a killed process may have sent their rows and not the files."""
        _ = self.experiment
        sent = [one for step, some in pictures_by_step(self._run_dir).items() if step <= self._sent for one in some]
        newest = max((path.stat().st_mtime for _, path, _ in sent), default=0.0)
        for panel, path, taken in sent:
            if path.stat().st_mtime > newest - UPLOADING:
                self.log_image(panel, [str(path)], taken)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left and end W&B's run.

        The last row of a run that failed or was preempted is not sent: a validation may still belong to it, W&B cannot
        change a row, and Lightning logs a step after the checkpoint that a preemption leaves. The resumed run sends the
        row. W&B lacks it if the run is never resumed.
        """
        if self._experiment is None:
            return
        if status in ("success", "finished"):
            self.send()
        self._row, self._with_parts = {}, {}
        run, self._row_step = self._experiment, -1
        self._attempt("finishing", lambda: self._finish(run, int(status == "failed")), self._finishing)
        self._experiment = None  # who trains on begins it again
        if self._wandb_init["mode"] == "offline" and not self._lost:
            print(f"W&B was offline; where there is internet, this uploads the run: lit-vae sync {self._run_dir}")

    def _finish(self, run: Any, exit_code: int) -> None:
        run.finish(exit_code=exit_code)
        folder = Path(run.dir).parent
        if run.settings.mode == "offline" and not any(folder.glob("*.wandb")):
            raise FileNotFoundError(f"its folder {folder} is gone")


def _parts(picture: str, temporary: ExitStack) -> list[Any]:
    """The parts of a picture as W&B takes them, in files of our own: W&B's folder for them may be gone."""
    import wandb

    folder = Path(temporary.enter_context(TemporaryDirectory()))
    shown = []
    for number, part in enumerate(parts_of(picture), 1):
        part.save(folder / f"{number}.png")
        shown.append(wandb.Image(str(folder / f"{number}.png"), caption=str(number)))
    return shown


def _send_file(run: Any, panel: str, picture: str, step: int) -> None:
    """Upload a picture of a row that W&B has, and its parts. Their names have hashes, so nothing arrives twice."""
    import wandb

    wandb.Image(picture).bind_to_run(run, panel, step)
    with ExitStack() as temporary:
        for part in _parts(picture, temporary):
            part.bind_to_run(run, key_of_parts(panel), step)


def in_a_line(error: Exception) -> str:
    """The kind of an error and its message, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
