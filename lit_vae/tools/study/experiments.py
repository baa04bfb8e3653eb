"""An experiment of ``lit-vae study``: a configuration, its run directory, and the next step."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lit_vae.run.config_folders import with_base
from lit_vae.run.files import CONFIG_FILE, RECORD_FILE, TEST_METRICS_FILE, read_json, replacing
from lit_vae.run.lock import LOCK_FILE
from lit_vae.run.settings import differences
from lit_vae.run.yaml_files import read_yaml
from lit_vae.tools.runs import Checkpoint

LOG_FILE = "study.log"
ABANDONED = "abandoned"
OUR_OWN = (LOG_FILE, LOCK_FILE, ABANDONED)
PAGE, SLURM_LOGS = "comparison", "slurm"
"""Folders beside the runs."""
BUDGET = "budget"
"""An overlay beside the runs, of ``--budget_from``."""
SEED = "seed_everything"

Step = Literal["encode", "train", "start anew", "resume", "test", "nothing"]
FOLLOWERS: dict[Step, tuple[Step, ...]] = {
    "encode": ("train",),
    "train": ("test", "nothing"),
    "resume": ("test", "nothing"),
    "test": ("nothing",),
}
"""What is next after a step that did not fail."""


@dataclass(frozen=True)
class Found:
    """What lies in a run directory: whether it has ``config.yaml`` and ``checkpoints/last.ckpt``.

    `status` is that in ``run.json``, None without the file; `tested`: its test is of the checkpoint that is compared.
    """

    config: bool = False
    last: bool = False
    status: str | None = None
    tested: bool = False


def next_step(found: Found) -> Step:
    """The next step of a run.

    A run without its first checkpoint cannot resume, and a run without ``config.yaml`` cannot be tested. Both start
    anew.
    """
    if not (found.config or found.last or found.status):
        return "train"
    if not found.config:
        return "start anew"
    if found.status == "finished":
        return "nothing" if found.tested else "test"
    return "resume" if found.last else "start anew"


@dataclass(frozen=True)
class Experiment:
    """A configuration, its overlays, and its run directory."""

    config: Path
    overlays: tuple[Path, ...]
    run: Path
    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """Name of the run: that of the configuration without ``.yaml``, with ``_seed1`` for a seed of the study."""
        return self.run.name

    @property
    def task(self) -> str:
        """Name of what one job of a cluster does: a run and its second stage."""
        return self.name

    @property
    def is_first_stage(self) -> bool:
        """Whether it needs no other run."""
        return self.task == self.name

    @property
    def files(self) -> tuple[Path, ...]:
        """The base of its folder, the configuration and its overlays."""
        return (*with_base(self.config), *self.overlays)

    def find(self) -> Found:
        """What lies in its run directory."""
        from lit_vae.run.loading import identity

        checkpoints = self.run / "checkpoints"
        compared = checkpoints / f"{self.checkpoint}.ckpt"
        tested = read_json(self.run / TEST_METRICS_FILE).get("checkpoint_sha256")
        return Found(
            config=(self.run / CONFIG_FILE).is_file(),
            last=(checkpoints / "last.ckpt").is_file(),
            status=read_json(self.run / RECORD_FILE).get("status"),
            tested=tested is not None and compared.is_file() and tested == identity(compared),
        )

    def next_step(self) -> Step:
        """What is to be done next."""
        return next_step(self.find())

    def command(self, step: Step) -> list[str]:
        """The module that does a step, and its arguments."""
        if step == "test":
            return ["lit_vae.cli", "test", "--config", str(self.run / CONFIG_FILE), "--ckpt_path", self.checkpoint]
        files = [argument for file in self.files for argument in ("--config", str(file))]
        resumed = ["--ckpt_path", "last"] if step == "resume" else []
        return ["lit_vae.cli", "fit", *files, "--run_dir", str(self.run), *resumed]

    def problem(self) -> str | None:
        """Why it cannot be trained: the configuration is wrong, or has changed since the run started. None if it can.

        The same parser reads the old and the new configuration, so a setting that was left out equals its default.
        """
        from lit_vae.tools.configurations import complete_config, config_of_run

        try:
            if not any("model" in read_yaml(file) for file in with_base(self.config)):
                return f"{self.config}: it has no model. An overlay is given with --config, beside a folder of others."
            would_be = complete_config(self.files)
        except ValueError as error:
            return f"{' with '.join(map(str, self.files))}: {error}"
        if next_step(self.find()) in ("train", "start anew"):
            return None
        saved = self.run / CONFIG_FILE
        try:
            was = config_of_run(saved)
        except ValueError as error:
            return f"{saved}: {error}\n{self._remedy}"
        changes = list(differences(was, would_be))
        if not changes:
            return None
        return "\n  ".join([f"{self.config} is not what {self.run} was trained with:", *changes, self._remedy])

    def for_as_long(self, leader: "Experiment") -> "Experiment":
        """The experiment with as many optimizer steps as another one took.

        They stand in an overlay in the folder of the runs.

        Raises:
            ValueError: the other one has not finished.
        """
        record = read_json(leader.run / RECORD_FILE)
        if record.get("status") != "finished":
            raise ValueError(f"{leader.name} has not finished, so the number of steps of the others is not known.")
        file = self.run.with_name(f"{BUDGET}.yaml")
        with replacing(file) as partial:
            steps = record["step"]  # not fewer either: a row with another seed of the leader has its StopWhenFlat
            partial.write_text(
                f"# as many steps as {leader.name} took\ntrainer: {{max_steps: {steps}, min_steps: {steps}}}\n"
            )
        return replace(self, overlays=(*self.overlays, file))

    def with_seeds(self, count: int) -> "list[Experiment]":
        """The experiment, and the same with the seeds that follow its own. These stand in overlays beside the runs."""
        given = [read_yaml(file).get(SEED) for file in self.files]
        own = next((seed for seed in reversed(given) if seed is not None), 0)
        if count > 1 and (isinstance(own, bool) or not isinstance(own, int)):
            raise ValueError(f"{self.config}: {SEED} (={own}) must be a number, so that --seeds can count from it.")
        return [self, *(self._with_seed(own + k) for k in range(1, count))]

    def _with_seed(self, seed: int) -> "Experiment":
        file = self.run.with_name(f"seed{seed}.yaml")
        with replacing(file) as partial:
            partial.write_text(f"{SEED}: {seed}\n")
        run = self.run.with_name(f"{self.name}_seed{seed}")
        return replace(self, overlays=(*self.overlays, file), run=run)

    @property
    def _remedy(self) -> str:
        return f"Undo that, move {self.run} away, or give another --out."

    def set_aside(self) -> Path:
        """Move the files of the run directory into a folder within it, so that a run can start there. Returns it."""
        aside = self.run / ABANDONED / time.strftime("%Y%m%d-%H%M%S")
        aside.mkdir(parents=True)
        for path in sorted(self.run.iterdir()):
            if path.name not in OUR_OWN:
                path.rename(aside / path.name)
        return aside
