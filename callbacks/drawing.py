"""Sheets of images with exact pixel values and thin white lines between them, and figures."""

import math
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lit_vae.images import to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_SIZE = 64  # pixels of the longer side of an image on a sheet
GAP, WIDE_GAP = 2, 10
FONT_SIZE = 13
DPI = 150
MINUS, SIGMA = "\N{MINUS SIGN}", "\N{GREEK SMALL LETTER SIGMA}"


def arrange(images: Tensor, columns: int | None = None) -> Tensor:
    """Images ``(N, C, H, W)`` row by row, the last row filled with white: ``(rows, columns, C, H, W)``.

    By default nearly square, or up to twice as wide as high if that leaves no place empty.
    """
    if columns is None:
        least = math.ceil(math.sqrt(len(images)))
        full = [c for c in range(least, 2 * least) if len(images) % c == 0]
        columns = full[0] if full else least
    rows = math.ceil(len(images) / columns)
    blank = images.new_ones(rows * columns - len(images), *images.shape[1:])
    return torch.cat([images, blank]).unflatten(0, (rows, columns))


def sheet(
    images: Tensor,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    wide_after_rows: Collection[int] = (),
    wide_after_columns: Collection[int] = (),
) -> Image.Image:
    """Images ``(rows, columns, C, H, W)`` in [-1, 1] on white, as a grey or RGB picture.

    Values are clamped and rounded to eight-bit levels, never rescaled. Small images are enlarged by an integer factor
    (nearest neighbour). ``info["cells"]`` of the picture has the box of each image: left, upper, right, lower.

    Args:
        images: images of one or three channels.
        row_labels: a text left of each row.
        column_labels: a text above each column, of one or more lines.
        wide_after_rows: indices of rows that are followed by a wider line.
        wide_after_columns: the same for columns.
    """
    channels, height, width = images.shape[2:]
    if channels not in (1, 3):
        raise ValueError(
            f"sheet: images of 1 or 3 channels can be drawn, these have {channels}. Remove the picture callbacks from"
            " trainer.callbacks."
        )
    factor = max(1, math.ceil(LEAST_SIZE / max(height, width)))
    levels = to_uint8(images).cpu().permute(0, 1, 3, 4, 2).numpy()  # (rows, columns, H, W, C)
    levels = levels.repeat(factor, 2).repeat(factor, 3)
    left = _text_width(row_labels) + 2 * GAP if row_labels else 0
    lines = max((label.count("\n") + 1 for label in column_labels), default=0)
    top = lines * (FONT_SIZE + GAP) + 2 * GAP if column_labels else 0
    ys, full_height = _positions(images.shape[0], height * factor, top, wide_after_rows)
    xs, full_width = _positions(images.shape[1], width * factor, left, wide_after_columns)
    canvas = np.full((full_height, full_width, channels), 255, np.uint8)
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            canvas[y : y + height * factor, x : x + width * factor] = levels[row, column]
    picture = Image.fromarray(canvas.squeeze(-1) if channels == 1 else canvas)
    picture.info["cells"] = [[(x, y, x + width * factor, y + height * factor) for x in xs] for y in ys]
    draw = ImageDraw.Draw(picture)
    ink = 0 if channels == 1 else (0, 0, 0)
    for y, label in zip(ys, row_labels, strict=False):
        draw.text((left - 2 * GAP, y + height * factor / 2), label, ink, _font(), anchor="rm")
    for x, label in zip(xs, column_labels, strict=False):
        for above, line in enumerate(reversed(label.split("\n"))):
            bottom = top - 2 * GAP - above * (FONT_SIZE + GAP)
            draw.text((x + width * factor / 2, bottom), line, ink, _font(), anchor="ms")
    return picture


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rasterize(figure: "Figure") -> Image.Image:
    """The figure as RGB pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)  # by `new_figure`
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _positions(count: int, size: int, start: int, wide_after: Collection[int]) -> tuple[list[int], int]:
    """First pixel of each of ``count`` cells, and the extent of all with a margin on both sides."""
    positions, at = [], start + GAP
    for index in range(count):
        positions.append(at)
        at += size + (WIDE_GAP if index in wide_after and index < count - 1 else GAP)
    return positions, at


@cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    # the only font that is always installed; it has Greek letters
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", FONT_SIZE)


def _text_width(labels: Sequence[str]) -> int:
    return math.ceil(max(_font().getlength(label) for label in labels)) + 2 * GAP
