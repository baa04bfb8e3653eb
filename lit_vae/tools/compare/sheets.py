"""Images of a comparison: single ones at their true pixels for the page, and sheets as files of their own."""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.images import to_uint8
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.pictures import Group, Pictures

if TYPE_CHECKING:
    from PIL import Image

_CELL = 128  # pixels of an image on a sheet, at least, so that names fit above it


def to_picture(x: Tensor) -> "Image.Image":
    """An image ``(C, H, W)`` in [-1, 1], one pixel for one value."""
    from PIL import Image

    levels = to_uint8(x).permute(1, 2, 0).numpy()
    return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def png(picture: "Image.Image") -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def coloured(error: Tensor, most: float) -> Tensor:
    """Errors ``(..., H, W)`` from 0 to ``most`` as colours ``(..., 3, H, W)`` in [-1, 1], black to light yellow."""
    import matplotlib

    shades = torch.as_tensor(matplotlib.colormaps["inferno"](torch.linspace(0, 1, 256).numpy())[:, :3])
    levels = (255.0 * error / most if most > 0.0 else torch.zeros_like(error)).round().long().clamp(0, 255)
    return (2.0 * shades[levels] - 1.0).movedim(-1, -3).float()


def reconstruction_sheet(group: Group, pictures: Sequence[Pictures], entries: Sequence[Entry]) -> "Image.Image":
    """Three rows for each image: original and reconstructions, the crop where they differ most, the errors."""
    from callbacks.drawing import sheet

    shown = [i for i in group.members if i in group.errors]
    height, width = group.x.shape[-2:]
    rows = []
    for n, crop in enumerate(group.crops):
        images = [group.x[n], *(p.x_hat[n] for i in shown if (p := pictures[i]).x_hat is not None)]
        rows.append(torch.stack([_rgb(image) for image in images]))
        crops = torch.stack([_rgb(crop.of(image)) for image in images])
        rows.append(F.interpolate(crops, (height, width), mode="nearest-exact"))
        errors = [coloured(group.errors[i][n], group.most_error) for i in shown]
        rows.append(torch.stack([torch.ones(3, height, width), *errors]))
    labels = [text for n in range(len(group.crops)) for text in (str(n + 1), "crop", "error")]
    names = [_in_lines(name, _CELL) for name in ("original", *(entries[i].label for i in shown))]
    return sheet(_enlarged(torch.stack(rows)), labels, names, wide_after_rows=range(2, len(rows), 3))


def sample_sheets(pictures: Sequence[Pictures], entries: Sequence[Entry]) -> list["Image.Image"]:
    """A row of samples for each run, and a sheet for each shape of images."""
    from callbacks.drawing import sheet

    by_shape: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        if picture.samples is not None:
            by_shape.setdefault(tuple(picture.samples.shape), []).append(i)
    return [
        sheet(torch.stack([p.samples for i in rows if (p := pictures[i]).samples is not None]),
              [entries[i].label for i in rows])
        for rows in by_shape.values()
    ]  # fmt: skip


def stack(pictures: Sequence["Image.Image"], gap: int = 24) -> "Image.Image":
    """Images one above the other, on white."""
    from PIL import Image

    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (0, top))
        top += picture.height + gap
    return canvas


def _rgb(x: Tensor) -> Tensor:
    return x.expand(3, -1, -1) if len(x) == 1 else x


def _enlarged(x: Tensor) -> Tensor:
    factor = -(-_CELL // max(x.shape[-2:]))
    return x.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _in_lines(text: str, width: int) -> str:
    """A label in lines of about so many pixels, broken after underscores and the like; a long word loses its middle."""
    most = width // 9  # pixels of a digit, about
    lines = [""]
    for word in re.findall(r"[^\W_]+[\W_]*|[\W_]+", text):
        if lines[-1] and len(lines[-1] + word) > most:
            lines.append("")
        lines[-1] += word if len(word) <= most else f"{word[: most // 2]}…{word[-(most // 2 - 1) :]}"
    return "\n".join(lines)
