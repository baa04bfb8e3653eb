"""The numbers of a run: where they are read from, how two of them compare, and how they are shown."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lit_vae.intervals import GROUPS, Estimate, half_width
from lit_vae.tools.compare.metric_table import LIKELIHOOD, RECONSTRUCTION, SAMPLES, metric
from lit_vae.tools.records import PRIOR_KINDS, Records

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""``(step, value)`` by name."""

_DISCRIMINATOR = "realism"
_DRAWN = "_drawn"

LEAST_RUNS = 5
"""Of fewer, a rank correlation says little: four in the same order by chance are one in 24."""

_DATA_OPTIONS_THAT_CHANGE_NO_IMAGE = frozenset(
    (
        *("root", "batch_size", "download", "random_flip", "num_train", "num_workers", "in_memory_mb", "on_error"),
        *("collapse_threshold", "seed"),  # the seed is there already, as data_seed
    )
)


@dataclass(frozen=True)
class Number:
    """A number, and what it was measured on and how. Two numbers compare if these agree.

    Args:
        value: of the metric.
        split: ``val`` or ``test``; blank for what training cost.
        data: what is known of the images. Older runs record less: a missing key is no difference.
        protocol: how it was measured. A missing key is a difference.
        words: text to show instead of the digits.
        replicates: the number without each group of images, see `lit_vae.intervals`; empty if not known.
    """

    value: float
    split: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    replicates: tuple[float, ...] = ()

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval over images; None if it is not known."""
        return half_width(self.replicates) if len(self.replicates) == GROUPS else None


def paired(mine: Number, theirs: Number, of: Callable[[float], float] = float) -> Estimate | None:
    """``of(mine) - of(theirs)`` on the same images; None without replicates of both."""
    if len(mine.replicates) != GROUPS or len(theirs.replicates) != GROUPS:
        return None
    replicates = [of(a) - of(b) for a, b in zip(mine.replicates, theirs.replicates, strict=True)]
    return Estimate(of(mine.value) - of(theirs.value), half_width(replicates))


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation of two numbers over runs."""

    value: float

    half_width: float | None
    """Half of its 95 % interval over images; None without replicates of all, as of generated images."""


def rank_correlation(xs: Sequence[Number], ys: Sequence[Number]) -> RankCorrelation | None:
    """See `RankCorrelation`.

    Runs with the same two numbers, such as RUN and RUN@gmm, count once. None for fewer than `LEAST_RUNS` runs, and if
    one of the numbers is the same for all.
    """
    xs, ys = zip(*{(x.value, y.value): (x, y) for x, y in zip(xs, ys, strict=True)}.values(), strict=True)
    few = min(len({number.value for number in numbers}) for numbers in (xs, ys)) < 2
    if few or len(xs) < LEAST_RUNS:
        return None
    from scipy.stats import spearmanr

    def correlation(pick: Callable[[Number], float]) -> float:
        return float(spearmanr([pick(x) for x in xs], [pick(y) for y in ys]).statistic)

    def without(group: int) -> float:
        return correlation(lambda number: number.replicates[group])

    known = all(len(number.replicates) == GROUPS for number in (*xs, *ys))
    interval = half_width([without(group) for group in range(GROUPS)]) if known else None
    return RankCorrelation(correlation(lambda number: number.value), interval)


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The numbers of ``metrics.csv`` by name. Of a row that was cut off, the complete numbers count.

    Raises:
        ValueError: the file is not a ``metrics.csv``.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return curves
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if "step" not in (rows.fieldnames or ()):
                raise ValueError("its first line has no column step")
            for row in rows:
                step = _number(row.get("step"))
                for name, text in row.items():
                    value = _number(text)
                    if step is not None and value is not None and "/" in (name or ""):
                        curves.setdefault(name, []).append((int(step), value))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: not a metrics.csv of a run ({error}). Restore the file, or remove it.") from error
    return curves


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def read_numbers(records: Records, curves: Curves, variant: str = "") -> dict[str, Number]:
    """The numbers of the test, or of the last validations if the run was not tested; and what training cost.

    For the variants, such as gmm and drawn, see `lit_vae.tools.compare.gather.Entry`.
    """
    measured = dict(_of_test(records) if records.test else _of_validation(records, curves))
    numbers = {name: number for name, number in measured.items() if not name.endswith(_DRAWN)}
    if variant == "drawn":  # what was measured on means, or on samples, is not of draws
        draws = {name.removesuffix(_DRAWN): n for name, n in measured.items() if name.endswith(_DRAWN)}
        return {**_without(numbers, RECONSTRUCTION, SAMPLES), **draws, **_cost(records)}
    if variant in PRIOR_KINDS:  # these numbers are of the model's own prior, not of the fitted one
        distortion = {name: number for name, number in numbers.items() if name == "distortion"}
        numbers = {**_without(numbers, SAMPLES, LIKELIHOOD), **distortion, **_of_bound(records, variant)}
    return {**numbers, **_of_samples(records, variant), **_cost(records)}


def _without(numbers: Mapping[str, Number], *groups: str) -> dict[str, Number]:
    return {name: number for name, number in numbers.items() if metric(name).group not in groups}


def _of_samples(records: Records, variant: str) -> dict[str, Number]:
    """What ``fit-prior`` and ``evaluate`` measured on samples."""
    record = records.prior(variant)
    prior = _without_split(record.get("metrics", {}))
    if variant in PRIOR_KINDS:
        end = f"_{variant}"
        prior = {name.removesuffix(end): v for name, v in prior.items() if name.endswith(end)}
    evaluation = records.evaluation.get(variant or "model") or {}
    protocols = {name: record.get("samples", {}) for name in prior}
    protocols |= _without_split(evaluation.get("protocols", {}))
    drawn = {**prior, **_without_split(evaluation.get("metrics", {}))}
    images = _images(records, records.test or record)
    return {
        name: Number(value, "test", images, protocols.get(name, {}))
        for name, value in drawn.items()
        if value is not None
    }


def _of_bound(records: Records, kind: str) -> dict[str, Number]:
    """Rate and bound of the test images with a fitted prior."""
    record = records.prior(kind)
    bound, replicates = record.get("bound_nats", {}), record.get("bound_replicates", {})
    data = {**_images(records, records.test or record), "num_images": records.test.get("num_images")}
    return {
        name: Number(bound[name], "test", data, replicates=tuple(replicates.get(name, ())))
        for name in ("rate", "elbo")
        if name in bound
    }


def _of_test(records: Records) -> Iterable[tuple[str, Number]]:
    data = {**_images(records, records.test), "num_images": records.test.get("num_images")}
    protocols = _without_split(records.test.get("protocols", {}))
    replicates = _without_split(records.test.get("replicates", {}))
    for name, value in _without_split(records.test.get("metrics", {})).items():
        if value is not None:
            of_groups = tuple(replicates.get(name, ()))
            yield name, Number(value, "test", data, protocols.get(name, {}), replicates=of_groups)


def _of_validation(records: Records, curves: Curves) -> Iterable[tuple[str, Number]]:
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
    known = {"data": name, "image_shape": shape, "data_seed": options.get("seed")}
    names = (*known, "values", "data_fingerprint")
    known |= {key: recorded[key] for key in names if recorded.get(key) is not None}
    if known["data"] == name:
        known |= {k: v for k, v in options.items() if k not in _DATA_OPTIONS_THAT_CHANGE_NO_IMAGE}
    return {key: value for key, value in known.items() if value is not None}


def _cost(records: Records) -> dict[str, Number]:
    """What training cost."""
    parameters = records.run.get("parameters", {})
    cost = {
        "seconds": records.run.get("seconds"),
        "parameters": sum(n for part, n in parameters.items() if part != _DISCRIMINATOR) or None,
        "peak_memory_bytes": records.run.get("peak_memory_bytes"),
    }
    return {name: Number(float(value)) for name, value in cost.items() if value is not None}


def of_both_stages(own: Mapping[str, Number], stage1: Mapping[str, Number]) -> dict[str, Number]:
    """A prior's numbers beside those of its stage 1, on the images of stage 1. The costs are added.

    Rate and bounds of stage 1 are left out, since they are of the prior that it was trained with.
    """
    of_images = next((number.data for number in stage1.values() if number.split), {})
    merged = _without(stage1, LIKELIHOOD)
    merged |= {name: number for name, number in stage1.items() if name == "distortion"}
    for name, number in own.items():
        if number.split:
            merged[name] = replace(number, data=of_images)
        elif name in stage1:
            words = f"{format_number(name, number.value)} + {format_number(name, stage1[name].value)}"
            merged[name] = Number(number.value + stage1[name].value, words=words)
        else:
            merged[name] = number
    return merged


def with_error(value: float, half_width: float) -> tuple[str, str]:
    """A number and half of its interval, to the second digit of the latter.

    >>> with_error(24.43774, 0.0519)
    ('24.438', '0.052')
    """
    digits = 1 - math.floor(math.log10(half_width)) if half_width > 0.0 else 4
    return f"{value:.{max(digits, 0)}f}", f"{half_width:.{max(digits, 0)}f}"


def format_number(name: str, value: float) -> str:
    """Up to five digits, with the unit."""
    if name == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if name == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    if name == "parameters":
        return f"{value:,.0f}"
    if value == round(value) and abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:#.5g}".rstrip(".") if 1e-3 <= abs(value) < 1e5 else f"{value:.3e}"
