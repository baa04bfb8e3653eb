"""The numbers of a run: the table of all metrics, where numbers are read from, and how they are shown."""

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from lit_vae.tools.records import Records

GROUPS = ("reconstruction", "samples", "likelihood", "latents", "codes", "cost", "other")
SAMPLES, LIKELIHOOD = "samples", "likelihood"

Score = Callable[[float], float]
"""A function of a value; larger results are better."""


def _high(value: float) -> float:
    return value


def _low(value: float) -> float:
    return -value


def _near_one(value: float) -> float:
    return -abs(value - 1.0)


class Metric(NamedTuple):
    """One line of the table below."""

    pattern: str
    group: str
    score: Score | None
    """None: no value is better than another."""

    words: str

    @property
    def direction(self) -> str:
        """Which value is better, in words; blank if none is."""
        return {_high: "higher is better", _low: "lower is better", _near_one: "best at 1"}.get(self.score, "")  # type: ignore[arg-type]


_TABLE = (
    Metric("psnr", "reconstruction", _high, "peak signal-to-noise ratio, dB"),
    Metric("ssim*", "reconstruction", _high, "structural similarity"),
    Metric("ms_ssim", "reconstruction", _high, "structural similarity over five scales"),
    Metric("mse", "reconstruction", _low, "squared error of a value in [-1, 1]"),
    Metric("lpips*", "reconstruction", _low, "perceptual distance to the original"),
    Metric("rfid", "reconstruction", _low, "Fréchet distance of the reconstructions to the originals, Inception"),
    Metric("rfd_*", "reconstruction", _low, "Fréchet distance of the reconstructions to the originals"),
    Metric("sharpness", "reconstruction", _near_one, "energy of high frequencies beside that of the originals"),
    Metric("laplacian_ratio", "reconstruction", _near_one, "variance of the Laplacian beside that of the originals"),
    Metric("fid", "samples", _low, "Fréchet distance of samples to images, Inception"),
    Metric("fd_*", "samples", _low, "Fréchet distance of samples to images"),
    Metric("kid*", "samples", _low, "kernel distance of samples to images"),
    Metric("kd_*", "samples", _low, "kernel distance of samples to images"),
    Metric("precision*", "samples", _high, "share of samples that lie among the images"),
    Metric("recall*", "samples", _high, "share of images that lie among the samples"),
    Metric("density*", "samples", _high, "how densely images lie around samples"),
    Metric("coverage*", "samples", _high, "share of images that have a sample near them"),
    Metric("elbo", "likelihood", _high, "lower bound of log p(x), nats per image"),
    Metric("bits_per_dim*", "likelihood", _low, "bits per value of an image"),
    Metric("nll*", "likelihood", _low, "-log p(x), nats per image"),
    Metric("rate*", "likelihood", None, "information in the latent, nats per image"),
    Metric("distortion", "likelihood", None, "-log p(x | z), nats per image"),
    Metric("active_units", "latents", None, "dimensions of the latent that images move"),
    Metric("mutual_information", "latents", None, "between image and latent, nats"),
    Metric("aggregate_kl", "latents", None, "of the aggregate posterior to the prior, nats"),
    Metric("kl_per_dim*", "latents", None, "rate of a dimension of the latent, nats"),
    Metric("latent*", "latents", None, "of the channels of the latent"),
    Metric("perplexity*", "codes", None, "how many codes are in use, evenly counted"),
    Metric("code_usage*", "codes", None, "share of the codes that occur"),
    Metric("bits_per_code", "codes", None, "length of a code"),
    Metric("commitment*", "codes", None, "distance of latents to their codes"),
    Metric("quantization*", "codes", None, "distance of latents to their codes"),
    Metric("seconds", "cost", None, "of training, by the clock"),
    Metric("parameters", "cost", None, "of the autoencoder, without a discriminator"),
    Metric("peak_memory_bytes", "cost", None, "the most that training took"),
)


def metric(name: str) -> Metric:
    """The first line of the table whose pattern fits. Unknown metrics are in the group "other"; they have no best."""
    return next((line for line in _TABLE if fnmatchcase(name, line.pattern)), Metric(name, "other", None, ""))


def ordered(names: set[str]) -> list[str]:
    """Names in the order of the table above."""
    lines = [line.pattern for line in _TABLE]

    def place(name: str) -> tuple[int, int, str]:
        known = metric(name)
        return GROUPS.index(known.group), lines.index(known.pattern) if known.pattern in lines else 0, name

    return sorted(names, key=place)


# ---- a run's own -----------------------------------------------------------------------------------------------------

Curves = Mapping[str, Sequence[tuple[int, float]]]
"""``(step, value)`` by name."""

_DISCRIMINATOR = "realism"
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
    """

    value: float
    split: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""


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


def read_numbers(records: Records, curves: Curves, mixture: bool) -> dict[str, Number]:
    """The numbers of the test, or of the last validations if the run was not tested; and what training cost."""
    drawn_from = "gmm" if mixture else "model"
    numbers = dict(_of_test(records) if records.test else _of_validation(records, curves))
    of_images = records.test or records.prior
    if mixture:  # these numbers are of the model's own prior, not of the mixture
        kept = {name: n for name, n in numbers.items() if metric(name).group not in (SAMPLES, LIKELIHOOD)}
        numbers = {**kept, **({"distortion": numbers["distortion"]} if "distortion" in numbers else {})}
    prior = {name.removeprefix("test/"): v for name, v in records.prior.get("metrics", {}).items()}
    if mixture:
        prior = {name.removesuffix("_gmm"): v for name, v in prior.items() if name.endswith("_gmm")}
    evaluation = records.evaluation.get(drawn_from) or {}
    protocols = {name: records.prior.get("samples", {}) for name in prior}
    protocols |= _without_split(evaluation.get("protocols", {}))
    drawn = {**prior, **_without_split(evaluation.get("metrics", {}))}
    for name, value in drawn.items():
        if value is not None:
            numbers[name] = Number(value, "test", _images(records, of_images), protocols.get(name, {}))
    return {**numbers, **_cost(records)}


def _of_test(records: Records) -> Iterable[tuple[str, Number]]:
    data = {**_images(records, records.test), "num_images": records.test.get("num_images")}
    protocols = _without_split(records.test.get("protocols", {}))
    for name, value in _without_split(records.test.get("metrics", {})).items():
        if value is not None:
            yield name, Number(value, "test", data, protocols.get(name, {}))


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
    """A prior's numbers beside those of its stage 1, on the images of stage 1. The costs are added."""
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
