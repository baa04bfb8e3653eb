"""An image file opened by Pillow, with facts that Pillow's image does not have; errors for unreadable files."""

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


class Unreadable(ValueError):
    """A file that is skipped, with the reason. ``kind`` is a short one that groups such files, such as ``corrupt``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class Refused(ValueError):
    """A file that needs a setting, or that Pillow reads wrongly. It is not skipped: reading stops."""


@dataclass(frozen=True)
class Opened:
    """An image file that Pillow has opened. ``raw`` is Pillow's name for the layout of pixels, such as ``RGB;16B``."""

    path: Path
    image: Any
    raw: str

    def load(self) -> None:
        """Decode the pixels."""
        self.image.load()
        key, scale = self.image.info.get("transparency"), _SCALED.get(self.raw)
        if scale is not None and isinstance(key, int):
            self.image.info["transparency"] = key * scale  # Pillow scales the levels, but not the transparent one

    @property
    def is_colour16(self) -> bool:
        """Whether it has 16 bits per channel, of which Pillow keeps 8."""
        kind, _, bits = self.raw.partition(";")
        return kind in _COLOURS and bits in ("16B", "16L", "16N")

    @property
    def is_scaled(self) -> bool:
        """Whether Pillow has scaled it to 16 bits by the range in the file."""
        return self.image.format == "PPM" and self.image.mode != "F"

    @property
    def is_white_zero(self) -> bool:
        """Whether the largest value is black; Pillow inverts only eight-bit images."""
        return getattr(self.image, "tag_v2", {}).get(_TAG_PHOTOMETRIC) == 0

    @property
    def bits(self) -> int:
        """How many of 16 bits are used, if the file says so."""
        return getattr(self.image, "tag_v2", {}).get(_TAG_BITS, (16,))[0]


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open an image file.

    Raises:
        Unreadable: Pillow raised an error, here or within the block.
    """
    try:
        # given a path, Pillow maps the file into memory, and garbles rotated TIFFs
        with path.open("rb") as stream:
            image = Image.open(stream)
            yield Opened(path, image, _raw_mode(image))
    except (Unreadable, Refused, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Read images between Pillow's limit and twice that without a warning for each. Not for use in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def colour16(file: Opened) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """All 16 bits of a colour image: values, opacity, and whether the values are multiplied by it.

    Pillow keeps only the upper bytes. A second reading in the other byte order gives the lower ones.
    """
    kind, _, order = file.raw.partition(";")
    if kind == "LA":  # as four bytes: upper and lower, of grey and of opacity
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
    """Read a file again, with another layout of pixels."""
    with file.path.open("rb") as stream:
        image: Any = Image.open(stream)
        image.tile = [(*tile[:3], raw if isinstance(tile[3], str) else (raw, *tile[3][1:])) for tile in image.tile]
        return np.asarray(image).astype(np.float64)


def _raw_mode(image: Any) -> str:
    """Pillow's name for the layout of pixels in the file, such as ``RGB;16B``."""
    tile = getattr(image, "tile", None)
    given = tile[0][3] if tile else None
    raw = given[0] if isinstance(given, tuple) and given else given
    return raw if isinstance(raw, str) else ""


def _unreadable(path: Path, error: Exception) -> Unreadable:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        limit = Image.MAX_IMAGE_PIXELS
        return Unreadable("above Pillow's size limit", f"more than twice PIL.Image.MAX_IMAGE_PIXELS (={limit}): {said}")
    if isinstance(error, PermissionError):
        return Unreadable("without permission to read", said)
    if isinstance(error, Image.UnidentifiedImageError) and _is_heif(path):
        return Unreadable(UNREAD_FORMAT, "HEIF under another name; convert it to JPEG or PNG")
    return Unreadable("corrupt", said.replace(repr(str(path)), "it"))


def _is_heif(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[4:8] == b"ftyp"
