"""The page: one HTML file that needs no other file and no network.

All markup is in ``templates``, where jinja2 escapes every text: a run may have any name.
"""

import base64
import hashlib
import re
import shlex
from collections.abc import Callable, Sequence
from importlib.resources import files
from itertools import groupby
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lit_vae.intervals import GROUPS, Estimate
from lit_vae.tools.compare.charts import style, svg
from lit_vae.tools.compare.differences import Column, image_differences, protocol_words
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.metric_table import metric
from lit_vae.tools.compare.numbers import format_number, with_error
from lit_vae.tools.compare.pictures import Crop, Group, psnr
from lit_vae.tools.compare.seeds import metrics_of
from lit_vae.tools.compare.sheets import coloured, png, to_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lit_vae.tools.compare.verb import Comparison

_PACKAGE = "lit_vae.tools.compare"
_ARROWS = {"higher is better": "↑", "lower is better": "↓", "best at 1": "→ 1"}
_SMALL = 128  # an image of fewer pixels a side is enlarged without smoothing


class Embedded(NamedTuple):
    """An image within the page: its address, and whether it is enlarged without smoothing."""

    address: str
    small: bool


def page(comparison: "Comparison") -> str:
    """The page as text. The same comparison gives the same text."""
    css, script = _file("page.css"), _file("page.js")
    scatters, spectra, curves = (
        [(chart, Markup(svg(chart))) for chart in charts]
        for charts in (comparison.scatters, comparison.spectra, comparison.curves)
    )
    of_charts = re.findall(
        r"<style[^>]*>(.*?)</style>", "".join(drawn for _, drawn in scatters + spectra + curves), re.S
    )
    environment = Environment(
        loader=PackageLoader(_PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        comparison=comparison,
        entries=comparison.entries,
        pictures=comparison.pictures,
        style=css,
        script=script,
        policy=_policy([css, *of_charts], [script]),
        summary=_summary(comparison),
        command=_command(comparison),
        facts=_facts,
        scatters=scatters,
        spectra=spectra,
        curves=curves,
        runs_in=lambda charts: sorted({i for chart, _ in charts for i in chart.points}),
        style_of=style,
        format_number=format_number,
        over_seeds=comparison.over_seeds,
        seed_metrics=[(name, metric(name)) for name in metrics_of(comparison.over_seeds)],
        **_images(comparison),
        **_numbers(comparison),
    )


def _file(name: str) -> Markup:
    return Markup("\n" + files(_PACKAGE).joinpath("templates", name).read_text("utf-8"))


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The page's own styles and script by their hashes, images within the page, and nothing from anywhere else.

    Attributes ``style`` cannot have a hash; charts and outlines need them.
    """

    def hashes(texts: Sequence[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in dict.fromkeys(texts))
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; img-src data:; script-src {hashes(scripts)}; style-src-elem {hashes(styles)};"
        " style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def _summary(comparison: "Comparison") -> str:
    sets = len([group for group in comparison.groups if group.errors])
    request = comparison.request
    images = f"at most {request.num_images} images of the {request.split} split"
    if sets > 1:
        return f"{len(comparison.entries)} runs on {sets} different sets of images; of each, {images}."
    return f"{len(comparison.entries)} runs; reconstructions of {images}."


def _command(comparison: "Comparison") -> str:
    request = comparison.request
    words = [*request.runs, "--out", comparison.name]
    for name in ("split", "num_images", "checkpoint", "seed"):
        words += [f"--{name}", str(getattr(request, name))]
    return f"lit-vae compare {shlex.join(words)}"


def _facts(entry: Entry) -> dict[str, str]:
    """What a card says of a run; blank values are left out."""
    facts = {"Status": entry.status, "Checkpoint": "no checkpoint"}
    if entry.run is not None:
        facts["Checkpoint"] = f"{entry.run.checkpoint.name}, SHA-256 {entry.run.identity[:12]}"
    for title, name in (("Time", "seconds"), ("Parameters", "parameters"), ("Peak memory", "peak_memory_bytes")):
        if number := entry.numbers.get(name):
            facts[title] = number.words or format_number(name, number.value)
    if entry.stage1 is not None and any(number.words for number in entry.numbers.values()):
        facts["Cost"] = "its own + that of stage 1"
    if device := entry.records.run.get("device"):
        ranks = entry.records.run.get("ranks", 1)
        facts["Device"] = device if ranks == 1 else f"{ranks} x {device}"
    return {**facts, "Directory": str(entry.records.directory)}


# ---- images ----------------------------------------------------------------------------------------------------------


def _images(comparison: "Comparison") -> dict[str, Any]:
    from callbacks.drawing import arrange, sheet

    entries = comparison.entries
    groups = [group for group in comparison.groups if group.errors]

    def labels(group: Group) -> str:
        return ", ".join(entries[i].label for i in group.members)

    def why_apart(group: Group, index: int) -> str:
        first = entries[comparison.groups[0].members[0]]
        why = "; ".join(image_differences(entries[group.members[0]], first, index, 0))
        return f"Not on the same images as {first.label}: {labels(group)} ({why})."

    return {
        "reconstructed": groups,
        "unseen": [i for i in range(len(entries)) if all(i not in group.members for group in groups)],
        "labels": labels,
        "why_apart": why_apart,
        "psnr": psnr,
        "coloured": coloured,
        "outline": _outline,
        "image": lambda x: _embedded(to_picture(x)),
        "sample_sheet": lambda x: _embedded(sheet(arrange(x, 4))),
    }


def _embedded(image: "Image") -> Embedded:
    return Embedded("data:image/png;base64," + base64.b64encode(png(image)).decode(), max(image.size) < _SMALL)


def _outline(crop: Crop, x: "Tensor") -> str:
    """The place of a crop in its image, as CSS."""
    height, width = x.shape[-2:]
    return (
        f"left:{crop.left / width:.3%};top:{crop.top / height:.3%};"
        f"width:{crop.side / width:.3%};height:{crop.side / height:.3%}"
    )


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(comparison: "Comparison") -> dict[str, Any]:
    columns, entries = comparison.numbers.columns, comparison.entries
    return {
        "column_groups": [
            (name, sorted(some, key=lambda column: not column.metric.decides))
            for name, some in groupby(columns, lambda column: column.metric.group)
        ],
        "with_error": with_error,
        "groups": GROUPS,
        "against_first": _differences_to_first(columns, len(entries)),
        "arrows": _ARROWS,
        "footnotes": comparison.numbers.footnotes,
        "letter": lambda i: ascii_lowercase[i] if i < 26 else str(i + 1),
        "any_validated": any(number.split == "val" for entry in entries for number in entry.numbers.values()),
        "protocols": _names_by_words(columns, protocol_words),
        "meanings": _names_by_words(columns, lambda column: column.metric.words),
    }


def _differences_to_first(columns: Sequence[Column], runs: int) -> list[tuple[Column, list[Estimate | None]]]:
    """The deciding numbers, and by how much each other run differs from the first in them."""
    found = [(column, [column.difference(i, 0) for i in range(1, runs)]) for column in columns if column.metric.decides]
    return [(column, differences) for column, differences in found if any(differences)]


def _names_by_words(columns: Sequence[Column], words: Callable[[Column], str]) -> dict[str, list[str]]:
    """Each explanation once, with the numbers that share it; numbers without one are left out."""
    explained: dict[str, list[str]] = {}
    for column in columns:
        if text := words(column):
            explained.setdefault(text, []).append(column.name)
    return explained
