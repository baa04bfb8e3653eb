"""What is known of a run, whatever became of it: its numbers and what they are of, its curves, its checkpoint."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_vae.tools.compare.metrics import LIKELIHOOD, SAMPLES, metric
from lit_vae.tools.records import (
    EVALUATION_FILE,
    PRIOR_RECORD_FILE,
    TEST_METRICS_FILE,
    Records,
    read_records,
)
from lit_vae.tools.runs import Checkpoint, Run, find_run

METRICS_FILE = "metrics.csv"
MIXTURE = "@gmm"

_NO_PART_OF_THE_AUTOENCODER = "realism"
_DATA_OPTIONS_THAT_CHANGE_NO_IMAGE = frozenset(
    (
        *("root", "batch_size", "download", "random_flip", "num_train", "num_workers", "in_memory_mb", "on_error"),
        *("collapse_threshold", "seed"),  # the seed is there already, as data_seed
    )
)


@dataclass(frozen=True)
class Number:
    """A number and what it is of: two compare if these are equal.

    Args:
        value: of a metric.
        split: ``val`` or ``test``.
        data: what is known of the images; what only one of two runs says of them is no difference.
        protocol: what was recorded of the measurement.
        words: how it is shown, where that is not by its digits.
    """

    value: float
    split: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Entry:
    """One of the runs to compare.

    Args:
        label: short, and unlike that of any other.
        given: what the user typed.
        records: of the run directory.
        run: its checkpoint; None where there is none yet.
        mixture: whether its samples are drawn from the mixture that was fitted to its latents.
        stage1: whose codes it is a prior of.
        numbers: by name, without the split.
        curves: ``(step, value)`` of each number of validation.
        notes: what must be said of it.
    """

    label: str
    given: str
    records: Records
    run: Run | None
    mixture: bool
    stage1: "Entry | None"
    numbers: Mapping[str, Number]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    notes: tuple[str, ...]

    @property
    def status(self) -> str:
        """What became of it, in words; nothing that depends on when it is asked."""
        record = self.records.run
        if not record:
            return "unknown: it has no run.json"
        step = f" at step {record['step']:,}" if "step" in record else ""
        if record["status"] == "running":
            return f"running, or killed; last heard of{step}, {record.get('updated', 'at an unknown time')}"
        error = f": {record['error']}" if "error" in record else ""
        return f"{record['status']}{step}{error}"


def gather(runs: Sequence[str], checkpoint: Checkpoint) -> list[Entry]:
    """Read all runs.

    Raises:
        ValueError: naming every one that is no run, or given twice.
    """
    twice = sorted({run for run in runs if runs.count(run) > 1})
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


def read_entry(given: str, label: str, checkpoint: Checkpoint) -> Entry:
    """Read one run.

    Raises:
        ValueError: it is none, or one of its files is broken.
    """
    mixture = given.endswith(MIXTURE)
    path = given.removesuffix(MIXTURE)
    run, notes = _find_checkpoint(path, checkpoint)
    directory = Path(path) if run is None else run.directory
    records = read_records(directory)
    curves = read_curves(directory / METRICS_FILE)
    if run is None and not (records.config or records.run or records.test or curves):
        raise ValueError(f"{given}: there is nothing of a run in it. Give a run directory, or a .ckpt file.")
    stage1, stage1_notes = _stage1(run, checkpoint)
    numbers = _with_cost({**_measured(records, curves, mixture)}, records)
    if stage1 is not None:
        numbers = _of_both_stages(numbers, stage1.numbers)
    notes += [*stage1_notes, *_other_checkpoints(records, run, mixture), *_how_measured(records, numbers, mixture)]
    return Entry(label, given, records, run, mixture, stage1, numbers, curves, tuple(notes))


def labels(runs: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [_parts(run) for run in runs]
    shortest = []
    for mine in parts:
        others = [theirs for theirs in parts if theirs is not mine]
        length = next((n for n in range(1, len(mine)) if all(mine[-n:] != o[-n:] for o in others)), len(mine))
        shortest.append("/".join(mine[-length:]))
    return shortest


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The numbers of ``metrics.csv`` by name. A row that was not written to its end counts as far as it goes."""
    curves: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return curves
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = _number(row.get("step"))
            for name, text in row.items():
                value = _number(text)
                if step is not None and value is not None and "/" in (name or ""):
                    curves.setdefault(name, []).append((int(step), value))
    return curves


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _parts(given: str) -> list[str]:
    path = Path(given.removesuffix(MIXTURE))
    if path.suffix == ".ckpt":
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        path = run / path.stem
    parts = list(path.absolute().parts)
    return [*parts[:-1], parts[-1] + (MIXTURE if given.endswith(MIXTURE) else "")]


def _find_checkpoint(path: str, checkpoint: Checkpoint) -> tuple[Run | None, list[str]]:
    """The checkpoint that was asked for, else the other one, else none."""
    if not Path(path).is_dir():
        return find_run(path, checkpoint), []
    other: Checkpoint = "last" if checkpoint == "best" else "best"
    there = [name for name in (checkpoint, other) if (Path(path) / "checkpoints" / f"{name}.ckpt").is_file()]
    if not there:
        return None, ["it has no checkpoint yet"]
    notes = [] if there[0] == checkpoint else [f"it has no {checkpoint}.ckpt: what is shown is of {other}.ckpt"]
    return find_run(path, there[0]), notes


def _stage1(run: Run | None, checkpoint: Checkpoint) -> tuple[Entry | None, list[str]]:
    """The run whose codes this one is a prior of, if it is a prior of codes."""
    if run is None:
        return None, []
    from lit_vae.models.code_prior import STAGE1
    from lit_vae.run.checkpoints import AtomicCheckpointIO

    whose = AtomicCheckpointIO().load_checkpoint(run.checkpoint).get(STAGE1)
    if whose is None:
        return None, []
    if not Path(whose["path"]).is_file():
        return None, [f"its stage 1 is not at {whose['path']}, so there are no images and no numbers of it"]
    stage1 = read_entry(whose["path"], "stage 1", checkpoint)
    said = [f"reconstructions and their numbers are those of its stage 1, {stage1.records.directory}"]
    return stage1, [*said, *(f"stage 1: {note}" for note in stage1.notes)]


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _measured(records: Records, curves: Mapping[str, Sequence[tuple[int, float]]], mixture: bool) -> dict[str, Number]:
    """What was measured on the test set, or, before there was a test, what the last validations say."""
    drawn_from = "gmm" if mixture else "model"
    numbers = dict(_of_test(records) if records.test else _of_validation(records, curves))
    of_images = records.test or records.prior
    if mixture:  # what the model's own prior is measured by says nothing of the mixture
        kept = {name: n for name, n in numbers.items() if metric(name).group not in (SAMPLES, LIKELIHOOD)}
        numbers = {**kept, **({"distortion": numbers["distortion"]} if "distortion" in numbers else {})}
    prior = {name.removeprefix("test/"): v for name, v in records.prior.get("metrics", {}).items()}
    if mixture:
        prior = {name.removesuffix("_gmm"): v for name, v in prior.items() if name.endswith("_gmm")}
    evaluation = records.evaluation.get(drawn_from, {})
    protocols = {name: records.prior.get("samples", {}) for name in prior}
    protocols |= _without_split(evaluation.get("protocols", {}))
    drawn = {**prior, **_without_split(evaluation.get("metrics", {}))}
    for name, value in drawn.items():
        if value is not None:
            numbers[name] = Number(value, "test", _images(records, of_images), protocols.get(name, {}))
    return numbers


def _of_test(records: Records) -> Iterable[tuple[str, Number]]:
    data = {**_images(records, records.test), "num_images": records.test.get("num_images")}
    protocols = _without_split(records.test.get("protocols", {}))
    for name, value in _without_split(records.test.get("metrics", {})).items():
        if value is not None:
            yield name, Number(value, "test", data, protocols.get(name, {}))


def _of_validation(records: Records, curves: Mapping[str, Sequence[tuple[int, float]]]) -> Iterable[tuple[str, Number]]:
    protocols = _without_split(records.run.get("protocols", {}))
    for name, points in curves.items():
        if name.startswith("val/"):
            short = name.removeprefix("val/")
            yield short, Number(points[-1][1], "val", _images(records, {}), protocols.get(short, {}))


def _without_split(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.rpartition("/")[2]: value for name, value in values.items()}


def _images(records: Records, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the images: what was recorded with the numbers, and the options of the data that change them."""
    config = records.config.get("data") or {}
    options = config.get("init_args") or {}
    name = str(config.get("class_path", "")).rpartition(".")[2] or None
    shape = ((records.config.get("model") or {}).get("init_args") or {}).get("image_shape")
    known = {"data": name, "image_shape": shape, "data_seed": options.get("seed"), "values": None}
    known |= {key: recorded[key] for key in known if recorded.get(key) is not None}
    if known["data"] == name:
        known |= {k: v for k, v in options.items() if k not in _DATA_OPTIONS_THAT_CHANGE_NO_IMAGE}
    return known


def _with_cost(numbers: dict[str, Number], records: Records) -> dict[str, Number]:
    parameters = records.run.get("parameters", {})
    cost = {
        "seconds": records.run.get("seconds"),
        "parameters": sum(n for part, n in parameters.items() if part != _NO_PART_OF_THE_AUTOENCODER) or None,
        "peak_memory_bytes": records.run.get("peak_memory_bytes"),
    }
    return {**numbers, **{name: Number(float(value)) for name, value in cost.items() if value is not None}}


def _of_both_stages(own: Mapping[str, Number], stage1: Mapping[str, Number]) -> dict[str, Number]:
    """A prior's own numbers are of the images that its stage 1's are of; what both cost is added."""
    of_images = next((number.data for number in stage1.values() if number.split), {})
    merged = dict(stage1)
    for name, number in own.items():
        if number.split:
            merged[name] = Number(number.value, number.split, of_images, number.protocol)
        elif name in stage1:
            words = f"{format_number(name, number.value)} + {format_number(name, stage1[name].value)}"
            merged[name] = Number(number.value + stage1[name].value, words=words)
        else:
            merged[name] = number
    return merged


def format_number(name: str, value: float) -> str:
    """A few digits, in the unit of what it is."""
    if name == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if name == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    if name == "parameters":
        return f"{value:,.0f}"
    if value == 0.0:
        return "0"
    return f"{value:.5g}" if 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"


# ---- what must be said -----------------------------------------------------------------------------------------------


def _how_measured(records: Records, numbers: Mapping[str, Number], mixture: bool) -> list[str]:
    said = []
    if any(number.split == "val" for number in numbers.values()):
        said.append("it was not tested: its numbers are those of its last validations, marked (val)")
    if mixture:
        said.append("samples are of the mixture fitted to its latents; bounds of the likelihood are of its own prior")
    return said


def _other_checkpoints(records: Records, run: Run | None, mixture: bool) -> list[str]:
    """Numbers of other weights than those that the images are of."""
    sources = {
        TEST_METRICS_FILE: records.test,
        str(PRIOR_RECORD_FILE): records.prior,
        EVALUATION_FILE: records.evaluation.get("gmm" if mixture else "model", {}),
    }
    if run is None or not any(sources.values()):
        return []
    return [
        f"the numbers of {file} are of {Path(record['checkpoint']).name} (SHA-256 {record['checkpoint_sha256'][:12]}),"
        f" the images of {run.checkpoint.name} ({run.identity[:12]})"
        for file, record in sources.items()
        if record.get("checkpoint_sha256") and record["checkpoint_sha256"] != run.identity
    ]
