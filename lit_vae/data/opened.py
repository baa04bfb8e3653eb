"""An image file as Pillow identifies it, with what only the file says; and how a file fails to be one."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lit_vae.data.formats import UNREAD_FORMAT

FULL = 65535.0
"""The largest value of 16 bits."""

_COLOURS = ("RGB", "RGBX", "RGBA", "RGBa", "CMYK", "LA")
_SCALED = {"L;2": 85, "L;4": 17}
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_TAG_BITS, _TAG_PHOTOMETRIC = 258, 262


class NotRead(ValueError):
    """A file that is left out.

    Args:
        kind: of files that are left out for the same reason, such as ``corrupt``.
        reason: in words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class Refused(ValueError):
    """A file that can be read only if more is said, or not rightly: it is not left out, it ends the reading."""


@dataclass(frozen=True)
class Opened:
    """An image file that Pillow has identified, and what only the file says.

    Args:
        path: of the file.
        image: Pillow's.
        raw: how pixels lie in the file, as Pillow names it, such as ``RGB;16B``.
    """

    path: Path
    image: Any
    raw: str

    def load(self) -> None:
        """Decode the pixels."""
        self.image.load()
        key, scale = self.image.info.get("transparency"), _SCALED.get(self.raw)
        if scale is not None and isinstance(key, int):
            self.image.info["transparency"] = key * scale  # Pillow scales the levels, and not the one that is clear

    @property
    def is_colour16(self) -> bool:
        """Whether it has 16 bits a channel, of which Pillow keeps 8."""
        kind, _, bits = self.raw.partition(";")
        return kind in _COLOURS and bits in ("16B", "16L", "16N")

    @property
    def is_scaled(self) -> bool:
        """Whether Pillow has scaled it to 16 bits by the range that the file names."""
        return self.image.format == "PPM" and self.image.mode != "F"

    @property
    def is_white_zero(self) -> bool:
        """Whether the largest value is black, which Pillow minds in eight bits only."""
        return getattr(self.image, "tag_v2", {}).get(_TAG_PHOTOMETRIC) == 0

    @property
    def bits(self) -> int:
        """Of a value of 16 bits those that are used, where the file says it."""
        return getattr(self.image, "tag_v2", {}).get(_TAG_BITS, (16,))[0]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open an image file.

    Raises:
        NotRead: for whatever Pillow raises here or within the ``with``.
    """
    try:
        # given a path, Pillow maps the memory, and garbles TIFFs that lie on their side
        with path.open("rb") as stream:
            image = Image.open(stream)
            yield Opened(path, image, _raw_mode(image))
    except (NotRead, Refused, MemoryError):
        raise
    except Exception as error:
        raise _not_read(path, error) from error


@contextmanager
def above_limit_too() -> Iterator[None]:
    """Let Pillow read images above its limit, but below twice that, without a warning for each. Not within threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def colour16(file: Opened) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """All 16 bits of a colour image: values, opacity, and whether they are multiplied by it.

    Pillow has no such mode and keeps the upper bytes. Read in the other byte order, they are the lower ones.
    """
    kind, _, order = file.raw.partition(";")
    if kind == "LA":  # as four bytes, upper and lower of both
        both = _as_bytes(file, "RGBA")
        samples = both[..., ::2] * 256.0 + both[..., 1::2]
    else:
        stored = kind.replace("a", "A")  # Pillow would divide the bytes by the opacity
        upper, lower = (_as_bytes(file, f"{stored};{name}") for name in (order, _OTHER_ORDER[order]))
        samples = upper * 256.0 + lower
    if kind == "CMYK":
        return (FULL - samples[..., :3]) * (FULL - samples[..., 3:]) / FULL, None, False
    if kind in ("RGB", "RGBX"):
        return samples, None, False
    values = samples[..., 0] if kind == "LA" else samples[..., :3]
    return values, samples[..., -1] / FULL, kind == "RGBa"


def _as_bytes(file: Opened, raw: str) -> np.ndarray:
    """Read a file again, with its pixels taken to lie there in another way."""
    with file.path.open("rb") as stream:
        image: Any = Image.open(stream)
        image.tile = [(*tile[:3], raw if isinstance(tile[3], str) else (raw, *tile[3][1:])) for tile in image.tile]
        return np.asarray(image).astype(np.float64)


def _raw_mode(image: Any) -> str:
    """How pixels lie in the file, as Pillow names it, such as ``RGB;16B``."""
    tile = getattr(image, "tile", None)
    given = tile[0][3] if tile else None
    raw = given[0] if isinstance(given, tuple) and given else given
    return raw if isinstance(raw, str) else ""


def _not_read(path: Path, error: Exception) -> NotRead:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        return NotRead("above Pillow's limit of size", f"more than twice PIL.Image.MAX_IMAGE_PIXELS (={limit}): {said}")
    if isinstance(error, PermissionError):
        return NotRead("without permission to read", said)
    if isinstance(error, Image.UnidentifiedImageError) and _is_heif(path):
        return NotRead(UNREAD_FORMAT, "HEIF under another name; convert it to JPEG or PNG")
    return NotRead("corrupt", said.replace(repr(str(path)), "it"))


def _is_heif(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"
