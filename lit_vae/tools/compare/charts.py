"""Scatter plots and training curves: which there are, as SVG for the page, and as one PNG."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from lit_vae.metrics.spectrum import energy_by_frequency
from lit_vae.tools.compare.differences import ComparedNumbers, Groups, image_differences
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.metric_table import metric, ordered
from lit_vae.tools.compare.numbers import RankCorrelation, format_number, rank_correlation
from lit_vae.tools.compare.pictures import Group, Pictures

if TYPE_CHECKING:
    from PIL import Image

INCHES = (3.7, 2.9)
MOST_CURVES = 12


class Style(NamedTuple):
    """Colour and marker of a run, the same all over the page. The colour-blind can tell the colours apart."""

    colour: str
    marker: str
    """Marker of matplotlib."""

    points: str
    """The marker as an SVG polygon between -5 and 5; blank for a circle."""


_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
_SHAPES = (
    ("o", ""),
    ("s", "-4.5,-4.5 4.5,-4.5 4.5,4.5 -4.5,4.5"),
    ("^", "0,-5 5,4.5 -5,4.5"),
    ("D", "0,-5 5,0 0,5 -5,0"),
    ("v", "0,5 5,-4.5 -5,-4.5"),
    ("P", "-1.7,-5 1.7,-5 1.7,-1.7 5,-1.7 5,1.7 1.7,1.7 1.7,5 -1.7,5 -1.7,1.7 -5,1.7 -5,-1.7 -1.7,-1.7"),
    ("X", "-5,-3 -3,-5 0,-2 3,-5 5,-3 2,0 5,3 3,5 0,2 -3,5 -5,3 -2,0"),
)


def style(index: int) -> Style:
    """Style of a run by its index. Six colours and seven markers make 42 styles."""
    return Style(_COLOURS[index % len(_COLOURS)], *_SHAPES[index % len(_SHAPES)])


@dataclass(frozen=True)
class Chart:
    """A diagram of some of the runs.

    Args:
        title: what it shows.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        points: by run, ``(x, y)`` in the order of x.
        order: Spearman's rank correlation of the runs; None if it says nothing.
    """

    title: str
    x: str
    y: str
    points: dict[int, list[tuple[float, float]]]
    order: RankCorrelation | None = None

    @property
    def is_curve(self) -> bool:
        """Whether some run has more than one point."""
        return any(len(points) > 1 for points in self.points.values())

    @property
    def differs(self) -> bool:
        """Whether both numbers differ between runs, of which each has one point."""
        return all(len(set(values)) > 1 for values in zip(*(points[0] for points in self.points.values()), strict=True))

    def words(self, entries: Sequence[Entry]) -> str:
        """The chart for those who cannot see it: the last point of each run."""
        ends = (
            f"{entries[i].label} {format_number('', points[-1][0])}, {format_number('', points[-1][1])}"
            for i, points in self.points.items()
        )
        return f"{self.title}. {self.y} over {self.x}: {'; '.join(ends)}."


_OF_LATENTS = {
    "latent_high_frequency": "Latent detail and generation",
    "latent_probe_accuracy": "Latent classes and generation",
    "latent_gaussian_nats": "Latent covariance and generation",
    "latent_noise": "Latent noise and generation",
}
"""Numbers of a first stage that may say how well a second stage can generate, and titles of their charts."""


def scatters(numbers: ComparedNumbers) -> list[Chart]:
    """One number over another, for pairs in which at least two runs compare; of latents, three that differ."""
    names = [column.name for column in numbers.columns if len(column.comparable) > 1]
    perceptual = [name for name in names if name.startswith(("lpips", "rfid", "rfd_"))]
    generated = [name for name in names if name == "fid" or name.startswith("fd_")]
    pairs = [
        ("Rate and distortion", "rate", "distortion"),
        ("Rate and reconstruction", "rate", "psnr"),
        *(("Distortion and perception", "psnr", name) for name in perceptual),
        *(("Reconstruction and generation", f"r{name}", name) for name in generated),
    ]
    of_latents = [(title, latent, name) for latent, title in _OF_LATENTS.items() for name in generated]
    found = [chart for pair in pairs if (chart := _scatter(numbers, *pair)) is not None]
    latent = [chart for pair in of_latents if (chart := _scatter(numbers, *pair, least=3)) is not None]
    equal = _equal_distortion(numbers)
    return [*([equal] if equal else []), *found, *(chart for chart in latent if chart.differs)]


def _equal_distortion(numbers: ComparedNumbers) -> Chart | None:
    """What an image costs in a progressive code, over the PSNR that is reached; see `callbacks.RateDistortion`."""
    columns = {
        float(match[1]): column
        for column in numbers.columns
        if (match := re.fullmatch(r"rate_at_(\d+)db", column.name)) is not None
    }
    points: dict[int, list[tuple[float, float]]] = {}
    for decibels in sorted(columns):
        column = columns[decibels]
        for i in column.comparable:
            points.setdefault(i, []).append((decibels, column.cells[i].number.value))  # type: ignore[union-attr]
    if len(points) < 2:
        return None
    return Chart("Rate at equal distortion", "PSNR, dB", "rate, nats per image", points)


def spectra(groups: Sequence[Group], pictures: Sequence[Pictures]) -> list[Chart]:
    """Over the spatial frequency, the energy of reconstructions and that of their errors, of the first runs' images.

    Both are relative to the energy of the originals there. Detail that is missing has none and an error of 1, invented
    detail that is as strong as the original's has an error of 2.
    """
    group = next((group for group in groups if group.errors), None)
    if group is None:
        return []
    frequency, original = energy_by_frequency(group.x)
    there = original > 0.0
    if not there.any():
        return []

    def relative(i: int, of: Callable[[Tensor], Tensor]) -> list[tuple[float, float]]:
        share = energy_by_frequency(of(pictures[i].x_hat))[1] / original  # type: ignore[arg-type]
        return list(zip(frequency[there].tolist(), share[there].tolist(), strict=True))

    def chart(title: str, y: str, of: Callable[[Tensor], Tensor]) -> Chart:
        return Chart(title, "cycles per pixel", y, {i: relative(i, of) for i in group.errors})

    return [
        chart("Detail", "energy, of the originals'", lambda x_hat: x_hat),
        chart("Error by detail", "energy of the error, of the originals'", lambda x_hat: group.x - x_hat),
    ]


def curves(entries: Sequence[Entry], groups: Groups) -> list[Chart]:
    """Validation numbers over steps, each for the runs that share its images; the first `MOST_CURVES`."""
    directories = [entry.records.directory for entry in entries]
    trained = [i for i, directory in enumerate(directories) if directories.index(directory) == i]  # RUN@gmm is RUN's
    names = {name.removeprefix("val/") for i in trained for name in entries[i].curves if name.startswith("val/")}
    charts = []
    for name in ordered(names):
        having = [i for i in trained if f"val/{name}" in entries[i].curves]
        shown = max((_alike(i, having, entries, groups) for i in having), key=len)  # `max` keeps the first
        if len(shown) > 1:
            points = {i: [(float(step), value) for step, value in entries[i].curves[f"val/{name}"]] for i in shown}
            charts.append(Chart(f"val/{name}", "step", _label(name), points))
    return charts[:MOST_CURVES]


def _alike(i: int, those: Sequence[int], entries: Sequence[Entry], groups: Groups) -> list[int]:
    return [j for j in those if not image_differences(entries[i], entries[j], groups[i], groups[j])]


def svg(chart: Chart) -> str:
    """The chart as SVG, with text as text, in the colours of the page around it."""
    import matplotlib

    from callbacks.drawing import new_figure

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.title + chart.x + chart.y}):
        figure = new_figure(*INCHES)
        _draw(figure.subplots(), chart)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_the_page(file.getvalue())


def draw_charts(charts: Sequence[Chart], entries: Sequence[Entry], columns: int = 3) -> "Image.Image":
    """All charts in one image, on white, with a legend below."""
    from matplotlib.lines import Line2D

    from callbacks.drawing import new_figure, rasterize

    columns = min(columns, len(charts))
    rows = -(-len(charts) // columns)
    drawn = [i for i in range(len(entries)) if any(i in chart.points for chart in charts)]
    width = columns * INCHES[0]
    of_a_label = 0.6 + 0.09 * max(len(entries[i].label) for i in drawn)  # inches
    side_by_side = min(max(int(width / of_a_label), 1), len(drawn))
    figure = new_figure(width, rows * INCHES[1] + 0.3 * -(-len(drawn) // side_by_side))
    all_axes: list[Any] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in all_axes[len(charts) :]:
        axes.set_axis_off()
    for axes, chart in zip(all_axes, charts, strict=False):
        _draw(axes, chart)
        axes.set_title(_plain(chart.title), fontsize=9)
    handles = [
        Line2D([], [], color=style(i).colour, marker=style(i).marker, label=_plain(entries[i].label)) for i in drawn
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=side_by_side, frameon=False)
    return rasterize(figure)


def _scatter(numbers: ComparedNumbers, title: str, x: str, y: str, least: int = 2) -> Chart | None:
    """The chart of two numbers; None if fewer runs than ``least`` have both."""
    columns = numbers.column(x), numbers.column(y)
    if columns[0] is None or columns[1] is None:
        return None
    both = [i for i in columns[0].comparable if i in columns[1].comparable]
    if len(both) < least:
        return None
    xs, ys = ([column.cells[i].number for i in both] for column in columns)  # type: ignore[union-attr]
    points = {i: [(a.value, b.value)] for i, a, b in zip(both, xs, ys, strict=True)}
    return Chart(title, _label(x), _label(y), points, rank_correlation(xs, ys))


def _label(name: str) -> str:
    known = metric(name)
    unit = next((f" ({unit})" for unit in ("nats", "dB") if f", {unit}" in known.words), "")
    return f"{name}{unit}" + (f", {known.direction}" if known.direction else "")


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: no formula between dollars; a leading underscore would hide a label."""
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def _draw(axes: Any, chart: Chart) -> None:
    for i, points in chart.points.items():
        colour, marker, _ = style(i)
        every = max(1, len(points) // 8)
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markevery=every, markersize=6, linewidth=1.4)
    axes.set_xlabel(_plain(chart.x), fontsize=9)
    axes.set_ylabel(_plain(chart.y), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(0.05 if chart.is_curve else 0.15)
    axes.grid(alpha=0.18, color="#808080")
    axes.spines[["top", "right"]].set_visible(False)


_Change = tuple[str, str | Callable[[re.Match[str]], str]]


def _for_the_page(text: str) -> str:
    """The ``<svg>`` in the colours and fonts of the page, without ids that nothing refers to."""
    text = text[text.index("<svg") :]
    used = set(re.findall(r"#([A-Za-z]\w*)", text))
    changes: tuple[_Change, ...] = (
        (r"#000000|(?<=[:\"] )#000\b", "currentColor"),
        (r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px"),
        (r"font-family: [^;\"]*;?", ""),
        (r"<metadata>.*?</metadata>\s*", ""),
        (r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else ""),
        (r'<svg (.*?)width="[^"]*"', r'<svg \1aria-hidden="true"'),
        (r'(<svg [^>]*?) height="[^"]*"', r"\1"),
    )
    for pattern, replacement in changes:
        text = re.sub(pattern, replacement, text, flags=re.S)
    return text
