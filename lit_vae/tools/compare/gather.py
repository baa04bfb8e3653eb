"""What a run directory holds, finished or not: the checkpoint, the numbers, the curves, and notes for the reader."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from lit_vae.run.files import EVALUATION_FILE, METRICS_FILE, TEST_METRICS_FILE
from lit_vae.tools.compare.metric_table import metric, ordered
from lit_vae.tools.compare.numbers import Curves, Number, of_both_stages, read_curves, read_numbers
from lit_vae.tools.records import NOUNS, PRIOR_KINDS, PriorKind, Records, prior_file, read_records
from lit_vae.tools.runs import Checkpoint, Run, find_run

Variant = Literal["", PriorKind, "drawn"]
"""Of RUN@gmm, RUN@drawn and so on: one training, shown in another way."""


@dataclass(frozen=True)
class Entry:
    """One of the runs to compare.

    Args:
        label: a short name that no other run has.
        given: what the user typed.
        records: JSON and YAML files of the run directory.
        run: the checkpoint; None if there is none yet.
        variant: gmm, flow, vamp, vae: samples are of that prior, fitted to the latents. drawn: reconstructions and
            samples are draws from p(x|z) and not its means.
        stage1: the autoencoder, if the run is a prior of its codes.
        numbers: by name, without the split.
        curves: ``(step, value)`` of each number that was logged.
        notes: what the reader of the page must know.
    """

    label: str
    given: str
    records: Records
    run: Run | None
    variant: Variant
    stage1: "Entry | None"
    numbers: Mapping[str, Number]
    curves: Curves
    notes: tuple[str, ...]

    @property
    def status(self) -> str:
        """How the run ended, in words. They do not depend on the current time."""
        record = self.records.run
        if not record:
            return "unknown: it has no run.json"
        step = f" at step {record['step']:,}" if "step" in record else ""
        if record["status"] == "running":
            return f"running, or killed; last heard of{step}, {record.get('updated', 'at an unknown time')}"
        error = f": {record['error']}" if "error" in record else ""
        return f"{record['status']}{step}{error}"


def gather(runs: Sequence[str], checkpoint: Checkpoint) -> list[Entry]:
    """Read all runs, in the order in which they were given.

    Raises:
        ValueError: some paths are no runs, or are given twice; it names all of them.
    """
    paths = [_parts(run) for run in runs]
    twice = [run for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1]
    if twice:
        raise ValueError(f"lit-vae compare: {', '.join(twice)}: given twice. Give each run once.")
    if len(runs) < 2:
        raise ValueError("lit-vae compare: one run is nothing to compare. Give two or more, or RUN and RUN@gmm.")
    wrong, found = [], []
    for given, label in zip(runs, labels(runs), strict=True):
        try:
            found.append(read_entry(given, label, checkpoint))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def best_first(entries: Sequence[Entry], pattern: str) -> list[Entry]:
    """The runs by the best of their numbers whose name fits the pattern; those that have none come last.

    A metric of which no value is better than another goes up from its smallest value.

    Raises:
        ValueError: no run has such a number.
    """

    def scores(entry: Entry) -> list[float]:
        return [_score(name, number.value) for name, number in entry.numbers.items() if fnmatchcase(name, pattern)]

    if not any(map(scores, entries)):
        known = ", ".join(ordered({name for entry in entries for name in entry.numbers})) or "a metric of tested runs"
        raise ValueError(f"--sort_by {pattern}: no run has this number. Give one of {known}.")
    return sorted(entries, key=lambda entry: max(scores(entry), default=-math.inf), reverse=True)


def _score(name: str, value: float) -> float:
    score = metric(name).score
    return -value if score is None else score(value)


def read_entry(given: str, label: str, checkpoint: Checkpoint) -> Entry:
    """Read one run.

    Raises:
        ValueError: the path is no run, or one of its files is damaged.
    """
    path, variant = split_variant(given)
    bare, _, unknown = path.rpartition("@")
    if not Path(path).exists() and Path(bare or path).exists():
        known = ", ".join(f"RUN@{name}" for name in get_args(Variant) if name)
        raise ValueError(f"{given}: there is no @{unknown} of a run. Give one of {known}.")
    run, notes = _find_checkpoint(path, checkpoint)
    directory = Path(path) if run is None else run.directory
    records = read_records(directory)
    curves = read_curves(directory / METRICS_FILE)
    if run is None and not (records.config or records.run or records.test or curves):
        raise ValueError(f"{given}: it holds no run. Give a run directory, or a .ckpt file.")
    stage1, stage1_notes = _stage1(run, checkpoint)
    numbers = read_numbers(records, curves, variant)
    if stage1 is not None:
        numbers = of_both_stages(numbers, stage1.numbers)
    notes += [*stage1_notes, *_other_checkpoints(records, run, variant), *_how_measured(records, numbers, variant)]
    return Entry(label, given, records, run, variant, stage1, numbers, curves, tuple(notes))


def split_variant(given: str) -> tuple[str, Variant]:
    """``RUN@gmm -> RUN, gmm``; the variant of a plain run is blank."""
    path, _, name = given.rpartition("@")
    variant: Variant = name if path and name in get_args(Variant) else ""  # type: ignore[assignment]
    return (path if variant else given), variant


def labels(runs: Sequence[str]) -> list[str]:
    """For each path its shortest end that no other path has."""
    parts = [_parts(run) for run in runs]
    shortest = []
    for mine in parts:
        others = [theirs for theirs in parts if theirs is not mine]
        length = next((n for n in range(1, len(mine)) if all(mine[-n:] != o[-n:] for o in others)), len(mine))
        shortest.append("/".join(mine[-length:]))
    return shortest


def _parts(given: str) -> list[str]:
    bare, variant = split_variant(given)
    path = Path(bare)
    if path.suffix == ".ckpt":
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        path = run / path.stem
    parts = list(Path(os.path.abspath(path)).parts)  # symbolic links keep their names
    return [*parts[:-1], parts[-1] + (f"@{variant}" if variant else "")]


def _find_checkpoint(path: str, checkpoint: Checkpoint) -> tuple[Run | None, list[str]]:
    """The checkpoint that was asked for, else the other one, else None; and notes about that."""
    if not Path(path).is_dir():
        return find_run(path, checkpoint), []
    other: Checkpoint = "last" if checkpoint == "best" else "best"
    there = [name for name in (checkpoint, other) if (Path(path) / "checkpoints" / f"{name}.ckpt").is_file()]
    if not there:
        return None, ["it has no checkpoint yet"]
    notes = [] if there[0] == checkpoint else [f"it has no {checkpoint}.ckpt: what is shown is of {other}.ckpt"]
    return find_run(path, there[0]), notes


def _stage1(run: Run | None, checkpoint: Checkpoint) -> tuple[Entry | None, list[str]]:
    """The autoencoder of a prior of codes, None for other runs; and notes about it."""
    if run is None:
        return None, []
    from lit_vae.models.abilities import STAGE1
    from lit_vae.run.checkpoints import AtomicCheckpointIO

    whose = AtomicCheckpointIO().load_checkpoint(run.checkpoint).get(STAGE1)
    if whose is None:
        return None, []
    if not Path(whose["path"]).is_file():
        return None, [f"its stage 1 is not at {whose['path']}, so there are no images and no numbers of it"]
    stage1 = read_entry(whose["path"], "stage 1", checkpoint)
    said = [f"reconstructions and their numbers are those of its stage 1, {_from_here(stage1.records.directory)}"]
    return stage1, [*said, *(f"stage 1: {note}" for note in stage1.notes)]


def _from_here(path: Path) -> str:
    """The path as a user would type it: a checkpoint of a prior holds the absolute path of stage 1."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


# ---- notes for the reader --------------------------------------------------------------------------------------------


def _how_measured(records: Records, numbers: Mapping[str, Number], variant: Variant) -> list[str]:
    said = []
    if any(number.split == "val" for number in numbers.values()):
        said.append("it was not tested: its numbers are those of its last validations, marked (val)")
    if variant:
        said.append(_NOTES[variant])
    return said


_NOTES: dict[str, str] = {
    **{kind: f"samples, rate and elbo are of the {noun} fitted to its latents" for kind, noun in NOUNS.items()},
    "drawn": "its images are draws from p(x|z), with the noise that the likelihood believes in, and not means",
}


def _other_checkpoints(records: Records, run: Run | None, variant: Variant) -> list[str]:
    """A note for each file whose numbers are of another checkpoint than the images."""
    shown = [kind for kind in PRIOR_KINDS if variant in ("", "drawn", kind)]
    sources = {
        TEST_METRICS_FILE: records.test,
        **{str(prior_file(kind)): records.priors.get(kind, {}) for kind in shown},
        EVALUATION_FILE: records.evaluation.get(variant if variant in PRIOR_KINDS else "model") or {},
    }
    if run is None or not any(sources.values()):
        return []
    return [
        f"the numbers of {file} are of {Path(record.get('checkpoint', '')).name} (SHA-256"
        f" {record['checkpoint_sha256'][:12]}), the images of {run.checkpoint.name} ({run.identity[:12]})"
        for file, record in sources.items()
        if record.get("checkpoint_sha256") and record["checkpoint_sha256"] != run.identity
    ]
