"""``lit-vae submit``: a training as a SLURM job, checked on the login node before it waits in a queue."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_vae.run.files import CONFIG_FILE, RECORD_FILE, read_json
from lit_vae.tools.cluster.slurm import need_sbatch, sbatch

SCRIPT = Path(__file__).with_name("train.sbatch")
SITE_TEMPLATE = Path(__file__).with_name("site.env.example")
NOTICE_MINUTES = 2.0
"""Minutes between the signal to a job and its end: ``--signal`` in ``train.sbatch``."""
SAVE_MINUTES = 10.0
"""Minutes between two checkpoints if the configuration does not say: the most that a failed node costs."""


def submit(
    configuration: str,
    config: list[str] | None = None,
    run_dir: str | None = None,
    nodes: int = 1,
    gpus: int = 1,
    ranks: int | None = None,
    time: str | None = None,
    batch: int | None = None,
    array: str | None = None,
    site: str = "slurm/site.env",
    dry_run: bool = False,
) -> None:
    """Train a configuration as a job of a SLURM cluster.

    At its time limit the job saves, goes back into the queue and continues in the same run directory. Before it is
    submitted, everything that can be checked is checked, and all problems are reported together.

    Args:
        configuration: A configuration (.yaml).
        config: Overlays.
        run_dir: Run directory. Default: runs/<config name>/<time>.
        nodes: Number of nodes.
        gpus: GPUs of each node; 0 trains on CPUs.
        ranks: Processes of each node. Default: one for each GPU.
        time: Time limit of one job in the format of sbatch: 12:00:00, 1-12. Default: that of the site or partition.
        batch: Images in a step over all ranks. Default: the configuration's batch_size on each rank.
        array: Seeds such as 0-4: a job for each of them, in RUN/<seed>.
        site: File with the settings of the cluster; made from a template if it is missing.
        dry_run: Check, and print what would be submitted.
    """
    from lit_vae.run.directory import choose_run_dir
    from lit_vae.tools.configurations import build_components
    from lit_vae.tools.prepare import unprepared

    files = [Path(file) for file in (configuration, *(config or []))]
    shape = Shape(nodes, gpus, max(gpus, 1) if ranks is None else ranks)
    try:
        components = build_components(files)
    except ValueError as error:
        raise ValueError(f"{' with '.join(map(str, files))}: {error}") from error
    content = components.content
    run = choose_run_dir(run_dir, files, None, fit=True)
    problems = [*shape.problems(batch), *time_problems(content, time), *array_problems(array), *site_problems(site)]
    problems += run_problems(run, content, array)
    lacking = unprepared(components)
    if not problems and not lacking:
        problems += batch_problems(components.data, shape.world, batch)
    if problems or lacking:
        raise ValueError("\n".join([*problems, *lacking]))
    options = [
        *shape.options(),
        *([] if time is None else [f"--time={time}"]),
        *([] if array is None else [f"--array={array}"]),
    ]
    log = run / ("%A_%a.out" if array else "%j.out")
    fit = [argument for file in files for argument in ("--config", str(file))]
    fit += [f"--data.batch_size={batch // shape.world}"] if batch else []
    fit += [] if saves_within_epochs(content) else [f"--last_checkpoint.every_n_minutes={SAVE_MINUTES:g}"]
    command = [*options, f"--output={log}", str(SCRIPT), str(run), *fit]
    if dry_run:
        print(shlex.join(["sbatch", *command]))
        return
    need_sbatch("lit-vae submit", "with --dry_run true")
    if not Path(site).exists():
        Path(site).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SITE_TEMPLATE, site)
        print(f"{site}: made, with everything commented out; partition, account and modules have their place there")
    run.mkdir(parents=True, exist_ok=True)  # SLURM makes no folder for a log
    job = sbatch("lit-vae submit", command, Path(site))
    print(f"job {job}, run directory {run}, log {str(log).replace('%A', job).replace('%j', job)}")


@dataclass(frozen=True)
class Shape:
    """Number of nodes of a job, and GPUs and processes of each node."""

    nodes: int
    gpus: int
    ranks: int

    @property
    def world(self) -> int:
        """Number of all processes."""
        return self.nodes * self.ranks

    def options(self) -> list[str]:
        """Options of sbatch."""
        gpus = [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        return [f"--nodes={self.nodes}", f"--ntasks-per-node={self.ranks}", *gpus]

    def problems(self, batch: int | None) -> Iterator[str]:
        """Problems, one message each."""
        if self.nodes < 1 or self.ranks < 1 or self.gpus < 0:
            yield f"--nodes {self.nodes}, --ranks {self.ranks}, --gpus {self.gpus}: give at least 1, 1 and 0."
        elif batch is not None and batch < 1:
            yield f"--batch {batch}: give at least {self.world}, one image for each rank."
        elif self.gpus and self.ranks != self.gpus:
            yield f"--ranks {self.ranks}: a process has one GPU, and there are --gpus {self.gpus}. Leave --ranks out."
        elif batch is not None and batch % self.world:
            near = max(batch // self.world, 1) * self.world
            yield (
                f"--batch {batch} does not divide by {self.world}, the ranks of --nodes {self.nodes} with {self.ranks}"
                f" each. Give --batch {near} or {near + self.world}."
            )


def array_problems(array: str | None) -> Iterator[str]:
    """Problems with ``--array``, the seeds."""
    if array is None:
        return
    seeds = re.fullmatch(r"(\d+(-\d+(:\d*[1-9]\d*)?)?,?)+(?<!,)(%\d*[1-9]\d*)?", array)
    ranges = re.findall(r"(\d+)-(\d+)", array)
    if seeds is None or any(int(first) > int(last) for first, last in ranges):
        yield f"--array {array}: not seeds as sbatch takes them. Give such as 3, 0-4, 0,2,7 or 0-9%2 (two at a time)."


def site_problems(site: str) -> Iterator[str]:
    """Problems with the site file, as bash reports them."""
    if not Path(site).exists():
        return
    if not Path(site).is_file():
        yield f"--site {site}: not a file. Give one of variables, such as slurm/site.env."
        return
    checked = subprocess.run(["bash", "-n", site], capture_output=True, text=True, check=False)
    if checked.returncode:
        yield f"--site: {checked.stderr.strip().splitlines()[0]}. Mend the file."


def run_problems(run: Path, content: Mapping[str, Any], array: str | None) -> list[str]:
    """Why a configuration cannot continue in a run directory: it holds another model or data, or has finished."""
    from lit_vae.tools.configurations import config_of_run

    problems = []
    for saved in sorted(run.glob(f"*/{CONFIG_FILE}")) if array else [run / CONFIG_FILE]:
        if not saved.is_file():
            continue
        was = config_of_run(saved)
        of = {part: (was[part].get("class_path"), content[part].get("class_path")) for part in ("model", "data")}
        other = [f"{part} {before}, not {now}" for part, (before, now) in of.items() if before != now]
        same_end = all(was["trainer"][end] == content["trainer"][end] for end in ("max_epochs", "max_steps"))
        if other:
            problems.append(f"--run_dir {saved.parent}: it was trained with {' and '.join(other)}. Give another.")
        elif same_end and read_json(saved.with_name(RECORD_FILE)).get("status") == "finished":
            problems.append(
                f"--run_dir {saved.parent}: this run has finished. Give another, or an overlay with more"
                " trainer.max_epochs."
            )
    return problems


def batch_problems(data: Any, world: int, batch: int | None) -> Iterator[str]:
    """Whether all ranks together need more images in a step than there are."""
    per_rank, images = getattr(data, "batch_size", None), _images_to_train_on(data)
    asked = batch or (None if per_rank is None else per_rank * world)
    if asked is not None and images is not None and asked > images:
        said = f"--batch {batch}" if batch else f"data.batch_size {per_rank} on {world} ranks"
        remedy = f"Give --batch {images // world * world}." if images >= world else "Take fewer ranks."
        yield f"{said}: {asked} images in a step, and there are {images} to train on. {remedy}"


def _images_to_train_on(data: Any) -> int | None:
    """Number of training images, an upper bound for folders (files are counted, not decoded); None if unknown."""
    from lit_vae.data.folders import Walk
    from lit_vae.data.formats import is_image_name
    from lit_vae.data.image_folder import PictureDataModule

    if isinstance(data, PictureDataModule):
        root = Path(str(data.root))  # type: ignore[attr-defined]
        return sum(is_image_name(path) for path in Walk(root).files(root))
    return len(data.source("train")) if hasattr(data, "source") else None


def saves_within_epochs(content: Mapping[str, Any]) -> bool:
    """Whether the configuration sets how often a checkpoint is written."""
    last = content["last_checkpoint"]
    return bool(last["every_n_steps"] or last["every_n_minutes"])


def time_problems(content: Mapping[str, Any], time: str | None) -> Iterator[str]:
    """Whether a job is too short to write a checkpoint before its signal to end."""
    if time is None:
        return
    if (limit := minutes(time)) is None:
        yield f"--time {time}: not a time as sbatch takes it. Give such as 90 (minutes), 12:00:00 or 1-12."
        return
    every = content["last_checkpoint"]["every_n_minutes"] or (0.0 if saves_within_epochs(content) else SAVE_MINUTES)
    if limit <= every + NOTICE_MINUTES:
        yield (
            f"--time {time} is {limit:g} minutes: too short for a checkpoint every {every:g} minutes and the signal"
            f" {NOTICE_MINUTES:g} minutes before the end. Give more time, or an overlay with"
            " last_checkpoint: {every_n_minutes: ...}."
        )


def minutes(time: str) -> float | None:
    """Minutes of a time limit ``M``, ``M:S``, ``H:M:S``, ``D-H``, ``D-H:M`` or ``D-H:M:S``; None for other texts."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", time):
        return None
    days, _, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days or len(parts) == 3:
        hours, more, seconds = [*parts, 0, 0][:3]
    else:
        hours, (more, seconds) = 0, [*parts, 0][:2]
    return int(days or 0) * 1440 + hours * 60 + more + seconds / 60
