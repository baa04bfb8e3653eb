"""``lit-vae study``: train and test the configurations of a folder one after another, then compare the runs."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Literal

from lit_vae.run.config_folders import configurations_in
from lit_vae.run.files import TEST_METRICS_FILE, read_json
from lit_vae.run.lock import LOCK_FILE, locked
from lit_vae.run.trust import trust_classes_of
from lit_vae.run.wandb_settings import SETTINGS_FILE
from lit_vae.run.yaml_files import read_yaml
from lit_vae.tools.runs import Checkpoint, check_arguments
from lit_vae.tools.study.experiments import FOLLOWERS, LOG_FILE, PAGE, SLURM_LOGS, Experiment, Step
from lit_vae.tools.study.processes import interruptible, run_logged
from lit_vae.tools.study.second_stage import with_second_stages

Part = Literal["all", "runs", "page"]

SHOWN_LINES = 12
"""Lines of a failed program's log that the error message repeats."""


class StepFailed(Exception):
    """A training or test failed; the message names the log."""


def study(
    folder: str,
    out: str | None = None,
    config: list[str] | None = None,
    checkpoint: Checkpoint = "last",
    only: list[str] | None = None,
    part: Part = "all",
    slurm: bool = False,
    budget_from: str | None = None,
    seeds: int = 1,
    sort_by: str | None = None,
) -> None:
    """Train every configuration of a folder, test it, and compare the runs on one page.

    Runs go to OUT/<configuration>, the page to OUT/comparison, and to W&B if the runs log to it. The same command
    continues where the last one ended: it skips runs that are trained and tested, and resumes interrupted ones. A run
    that fails does not stop the others.

    Args:
        folder: Folder of configurations; subfolders are ignored.
        out: Folder of the runs. Default: runs/compare/mnist for configs/compare/mnist, and so on.
        config: Overlay for each of them, such as configs/overlays/bf16.yaml.
        checkpoint: Which checkpoint of each run is tested and compared.
        only: Names of the configurations to train and test. Default: all.
        part: runs: without the page. page: the page of the runs so far, without training.
        slurm: Submit jobs to SLURM instead: one for each configuration that is not done, then one for the page.
        budget_from: Name of a configuration to train first. All others get the number of steps that it took; see
            callbacks.StopWhenFlat.
        seeds: Number of trainings of each configuration, with its own seed and those that follow. The page shows the
            first, and means over all.
        sort_by: Metric whose best run comes first on the page, such as psnr; see lit-vae compare.
    """
    check_arguments("study", {"seeds": (seeds, 1)})
    runs = _runs_folder(folder, out)
    configurations = read_folder(Path(folder), [Path(overlay) for overlay in config or []], runs, checkpoint)
    of_each_seed = zip(*(experiment.with_seeds(seeds) for experiment in configurations), strict=True)
    every = with_second_stages([e for of_one_seed in of_each_seed for e in of_one_seed], Path(folder))
    chosen = _choose(every, only, "--only")
    _trust_classes_of(every)
    failures: list[str] = []
    with interruptible("the same command goes on from here"):
        if part != "page":
            if budget_from is not None:
                chosen = _with_budget(_choose(every, [budget_from], "--budget_from")[0], chosen, train=not slurm)
            _refuse_problems(chosen)
        if slurm:
            options = [] if budget_from is None else ["--budget_from", budget_from]
            options += [] if seeds == 1 else ["--seeds", str(seeds)]
            options += [] if sort_by is None else ["--sort_by", sort_by]
            _submit(folder, config or [], options, runs, chosen, part)
            return
        if part != "page":
            watch = _estimator(chosen)
            failures += [failure for e in chosen if (failure := _carry_out(e, _place(e, chosen), watch))]
        if part != "runs" and (failure := _make_page(every, runs / PAGE, checkpoint, sort_by)):
            failures.append(failure)
    if failures:
        raise ValueError("\n\n".join(failures))


def _refuse_problems(chosen: Sequence[Experiment]) -> None:
    if problems := [problem for e in chosen if (problem := e.problem())]:
        raise ValueError("\n".join(problems))


def _with_budget(leader: Experiment, chosen: Sequence[Experiment], train: bool) -> list[Experiment]:
    """The leader, trained if need be, and the other experiments with its number of steps.

    Raises:
        ValueError: it failed, or it is not trained and must not be trained here.
    """
    others = [e for e in chosen if e is not leader]
    if train and leader.next_step() != "nothing":
        # a mistake in another one is found now, and not after this training
        _refuse_problems([leader, *(e for e in others if e.next_step() == "train")])
        title = f"{leader.name} (sets the number of steps)"
        if failure := _carry_out(leader, title, _estimator([leader, *others])):
            raise ValueError(failure)
    return [leader, *(e.for_as_long(leader) for e in others)]


def _trust_classes_of(every: Sequence[Experiment]) -> None:
    """Trust the classes in the user's configurations: the page loads checkpoints that name them."""
    for file in dict.fromkeys(file for experiment in every for file in experiment.files):
        with suppress(ValueError):  # training reports a file that cannot be read
            trust_classes_of(read_yaml(file))


def _submit(
    folder: str, overlays: Sequence[str], options: Sequence[str], runs: Path, chosen: Sequence[Experiment], part: Part
) -> None:
    from lit_vae.tools.cluster.slurm import submit_study

    left = [] if part == "page" else list(dict.fromkeys(e.task for e in chosen if e.next_step() != "nothing"))
    laid_over = [argument for overlay in overlays for argument in ("--config", overlay)]
    arguments = [folder, *laid_over, *options, "--out", str(runs), "--checkpoint", chosen[0].checkpoint]
    submit_study(left, arguments, runs / SLURM_LOGS, page=part != "runs")


def read_folder(folder: Path, overlays: Sequence[Path], runs: Path, checkpoint: Checkpoint) -> list[Experiment]:
    """The experiments of a folder, by name.

    Raises:
        ValueError: there is no such folder, or there is nothing in it.
    """
    if not folder.is_dir():
        raise ValueError(f"lit-vae study: {folder} is no folder. Give one with a configuration (.yaml) for each run.")
    found = configurations_in(folder)
    if taken := [path for path in found if path.stem in (PAGE, SLURM_LOGS)]:
        raise ValueError(
            f"lit-vae study: {taken[0]} would write where the study does, into {runs / taken[0].stem}. Rename it."
        )
    return [Experiment(path, tuple(overlays), runs / path.stem, checkpoint) for path in found]


def _runs_folder(folder: str, out: str | None) -> Path:
    """``configs/compare/mnist`` -> ``runs/compare/mnist``; a folder outside ``configs`` -> ``runs/<name>``."""
    if out is not None:
        return Path(out)
    parts = Path(folder).absolute().parts
    below = parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else ()
    return Path("runs", *(below or parts[-1:]))


def _choose(every: Sequence[Experiment], only: Sequence[str] | None, option: str) -> list[Experiment]:
    names = [e.name for e in every]
    if unknown := [name for name in only or () if name not in names]:
        raise ValueError(
            f"{option} {', '.join(unknown)}: there is no such configuration. Give one of {', '.join(names)}."
        )
    return [e for e in every if not only or e.name in only or e.task in only]


def _place(experiment: Experiment, chosen: Sequence[Experiment]) -> str:
    return f"{experiment.name} ({chosen.index(experiment) + 1}/{len(chosen)})"


Watch = Callable[[float, str], None]
"""What is called each second of a training; see `run_logged`."""


def _estimator(chosen: Sequence[Experiment]) -> Watch:
    """Says once how long what is left to train takes, while the first of it trains."""
    from lit_vae.tools.study.estimate import Estimate

    first_stages = [e for e in chosen if e.is_first_stage]
    estimate = Estimate([e for e in first_stages if e.next_step() not in ("test", "nothing")])

    def watch(seconds: float, line: str) -> None:
        if said := estimate.after(seconds, line):
            _say(said)

    return watch


def _carry_out(experiment: Experiment, title: str, watch: Watch) -> str | None:
    """Do the remaining steps of a run. Returns why it failed, None if it did not."""
    if experiment.next_step() == "nothing":
        _say(f"{title}: done before")
        return None
    began = time.monotonic()
    try:
        with locked(experiment.run / LOCK_FILE) as held:
            while (step := experiment.next_step()) != "nothing":
                timed = experiment.is_first_stage and step != "test"
                _take(step, experiment, title, held, watch if timed else lambda *_: None)
    except BlockingIOError as error:
        _say(f"{title}: left alone")
        remedy = "Wait until it ends or stop it, and run this command again."
        return f"{experiment.name} is running elsewhere: {error}. {remedy}"
    except (StepFailed, OSError, ValueError) as error:
        _say(f"{title}: FAILED after {_since(began)}")
        return f"{experiment.name}: {error}"
    _say(f"{title}: done in {_since(began)}")
    return None


def _take(step: Step, experiment: Experiment, title: str, held: IO[str], watch: Watch) -> None:
    """Do one step.

    Raises:
        StepFailed: the program failed or ended too early.
        ValueError: what the step needs is not there.
    """
    if step == "start anew":
        _say(f"{title}: had no checkpoint to go on from; what it left is in {experiment.set_aside()}")
        return
    module, *arguments = experiment.command(step)
    _say(f"{title}: {_DOES[step]}")
    log = experiment.run / LOG_FILE
    code, output = run_logged([sys.executable, "-m", module, *arguments], log, held, watch)
    if code == 0 and experiment.next_step() in FOLLOWERS[step]:
        return
    how = f"exit code {code}" if code else "it ended too early"
    shown = "\n".join(f"  | {line}" for line in output.splitlines()[-SHOWN_LINES:])
    program = {"lit_vae.cli": "lightning", "lit_vae.tools": "lit-vae"}[module]
    raise StepFailed(f"{program} {arguments[0]} failed ({how}). All of it is in {log}:\n{shown}")


_DOES: dict[Step, str] = {
    "encode": "encodes the images of its first stage",
    "train": "trains",
    "resume": "trains on",
    "test": "tests",
}


def _make_page(every: Sequence[Experiment], page: Path, checkpoint: Checkpoint, sort_by: str | None) -> str | None:
    """Compare the runs that have a checkpoint and print which are not done. Returns why there is no page, or None."""
    begun = [experiment for experiment in every if experiment.find().last]
    if not begun:
        return f"{page}: no run has a checkpoint, so there is nothing to compare."
    if not_done := [experiment.name for experiment in every if experiment.next_step() != "nothing"]:
        _say(f"{PAGE}: not done are {', '.join(not_done)}")
    from lit_vae.tools.compare import compare

    wandb = any((experiment.run / SETTINGS_FILE).is_file() for experiment in begun)  # where the trainings are, too
    try:
        behind = {e.task for e in begun if not e.is_first_stage}  # a second stage shows the numbers of both
        runs = [run for experiment in begun if experiment.name not in behind for run in _shown(experiment)]
        compare(runs=runs, out=str(page), checkpoint=checkpoint, wandb=wandb, sort_by=sort_by)
    except (ValueError, OSError) as error:
        return f"{page}: {error}"
    return None


def _shown(experiment: Experiment) -> list[str]:
    """The run, and its draws where they were measured."""
    metrics = read_json(experiment.run / TEST_METRICS_FILE).get("metrics", {})
    drawn = any(name.endswith("_drawn") for name in metrics)
    return [str(experiment.run), *([f"{experiment.run}@drawn"] if drawn else [])]


def _since(began: float) -> str:
    return str(timedelta(seconds=round(time.monotonic() - began)))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
