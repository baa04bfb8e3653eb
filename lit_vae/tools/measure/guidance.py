"""What ``lit-vae evaluate --guidance`` adds: the scales that are asked for, and a picture of what they change."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.tools.output import print_numbers, save_picture

if TYPE_CHECKING:
    from PIL import Image

    from lit_vae.diffusion import Sampling
    from lit_vae.tools.record_forms import Metrics


def scales_in(given: str | None) -> list[float]:
    """The scales of ``--guidance 1,1.5,2,3``; empty without the option. Their range is checked by the sampler.

    Raises:
        ValueError: something is not a number, or a scale is there twice.
    """
    if given is None:
        return []
    try:
        scales = [float(part) for part in given.split(",")]
    except ValueError as error:
        raise ValueError(
            f"lit-vae evaluate: --guidance (={given}) must be numbers with commas between them, such as 1,1.5,2,3."
        ) from error
    times = Counter(f"{scale:g}" for scale in scales)  # as a sampling is named
    if twice := [scale for scale in times if times[scale] > 1]:
        raise ValueError(
            f"lit-vae evaluate: --guidance (={given}) has {', '.join(twice)} more than once. Give each scale once."
        )
    return scales


def show_curve(title: str, measured: "Mapping[Sampling, Metrics]", names: Sequence[str], path: Path) -> None:
    """Print a column of numbers for each scale of guidance, and write the picture `draw_curve` of them.

    ``names`` are those of the Fréchet distance, precision and recall.
    """
    first = next(iter(measured))
    how = f"{first.steps} steps of {first.sampler}"
    print_numbers(f"{title}  {how}", {str(sampling.guidance): numbers for sampling, numbers in measured.items()})
    curve = {sampling.guidance.scale: numbers for sampling, numbers in measured.items() if sampling.guidance}
    save_picture(draw_curve(curve, *names), path, f"Distances of samples to real images by guidance, {how}")


def draw_curve(curve: "Mapping[float, Metrics]", distance: str, precision: str, recall: str) -> "Image.Image":
    """Fréchet distance over guidance and, if they were measured, precision over recall with the scale at each point.

    ``curve`` has the numbers by scale; None where the model has diverged.
    """
    from callbacks.drawing import new_figure, rasterize

    curve = dict(sorted(curve.items()))
    traded = all(precision in numbers for numbers in curve.values())
    figure = new_figure(4.2 * (1 + traded), 3.3)
    first, *second = figure.subplots(1, 1 + traded, squeeze=False)[0]
    _line(first, [(scale, numbers[distance]) for scale, numbers in curve.items()])
    first.set_xlabel("scale of guidance (1: none)")
    first.set_ylabel(f"{distance.removeprefix('test/')}, lower is better")
    for axes in second:
        points = [(numbers[recall], numbers[precision]) for numbers in curve.values()]
        _line(axes, points)
        for scale, point in zip(curve, points, strict=True):
            if None not in point:
                axes.annotate(f"{scale:g}", point, xytext=(5, 5), textcoords="offset points", fontsize=9)
        axes.set_xlabel(f"{recall.removeprefix('test/')} (diversity)")
        axes.set_ylabel(f"{precision.removeprefix('test/')} (fidelity)")
    return rasterize(figure)


def _line(axes: Any, points: Sequence[tuple[float | None, float | None]]) -> None:
    """A line through the points ``(x, y)`` that there are."""
    known = [point for point in points if None not in point]
    axes.plot(*zip(*known, strict=True), color="tab:blue", marker="o")
    axes.margins(0.12)
    axes.grid(alpha=0.2, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
