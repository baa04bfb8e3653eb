"""From an image file of any bit depth to eight-bit levels, grey or RGB, with transparent pixels over a background.

========================================  ============================================================================
in the file                               levels
========================================  ============================================================================
8 bits or fewer, palettes                 as they are
16 bits, grey or colour                   ``round(v / 257)``: 0 to 65535 become 0 to 255
12 bits in a TIFF that says so, PGM, PPM  by the range in the file
another range in 16 bits, 32 bits, float  by ``value_range``; without it, 32 bits and float are refused
CMYK, YCbCr, HSV                          Pillow's conversion, without colour profiles
CIELAB                                    sRGB by LittleCMS
========================================  ============================================================================
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps

from lit_vae.data.opened import FULL, Opened, Refused, Unreadable, colour16, opened

_GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "LA", "PA", "RGBA", "La", "RGBa")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Samples:
    """The values of an image of more than eight bits, as float64.

    Args:
        values: ``(H, W)`` or ``(H, W, 3)``.
        low: the value of level 0.
        high: the value of level 255.
        alpha: opacity in [0, 1], ``(H, W)``; None: opaque.
        premultiplied: whether values are multiplied by the opacity.
        from_file: whether the range comes from the file, not from ``value_range``.
    """

    values: np.ndarray
    low: float
    high: float
    alpha: np.ndarray | None = None
    premultiplied: bool = False
    from_file: bool = True

    def over(self, background: tuple[int, int, int]) -> Image.Image:
        """Round to levels, with transparent pixels over a background."""
        share = np.clip((self.values - self.low) / (self.high - self.low), 0.0, 1.0)
        if self.alpha is not None:
            share = share if share.ndim == 3 else np.repeat(share[..., None], 3, 2)
            alpha = self.alpha[..., None]
            share = (share if self.premultiplied else share * alpha) + np.array(background) / 255.0 * (1.0 - alpha)
        return Image.fromarray(np.rint(np.clip(255.0 * share, 0.0, 255.0)).astype(np.uint8))


@dataclass(frozen=True)
class Decoder:
    """Reads image files as images of mode ``L`` or ``RGB``, upright; of several frames, the first.

    Args:
        channels: 1 or 3.
        background: colour of transparent pixels, as Pillow names it.
        value_range: the values of black and white in images of more than eight bits whose files do not say it; None: 0
            and 65535 for 16 bits.
    """

    channels: int
    background: str = "white"
    value_range: tuple[float, float] | None = None

    def __call__(self, path: Path) -> Image.Image:
        """Decode a file.

        Raises:
            Unreadable: it is not a complete image.
            Refused: the range of its values is unknown.
        """
        with opened(path) as file:
            image = self._opaque(file)
            orientation = file.image.getexif().get(_ORIENTATION, 1)
        if orientation != 1:
            image.getexif()[_ORIENTATION] = orientation
            image = ImageOps.exif_transpose(image)
        return image.convert("L" if self.channels == 1 else "RGB")

    def samples(self, file: Opened) -> Samples | None:
        """Read an image of more than eight bits. For any other, load its pixels and return None.

        Raises:
            Refused: the range of its values is unknown.
        """
        file.load()
        image = file.image
        if file.is_colour16:
            values, alpha, premultiplied = colour16(file)
            low, high, from_file = 0.0, FULL, True
        elif image.mode in (*_GREY16, "I", "F"):
            low, high, from_file = self._range(file)
            values, alpha, premultiplied = np.asarray(image).astype(np.float64), None, False
        elif image.mode in _PLAIN:
            return None
        else:
            raise Refused(f"{file.path}: Pillow's mode {image.mode} is not read. Convert the file to PNG.")
        if not np.isfinite(values).all():
            raise Unreadable("with values that are not finite", "NaN or infinite values")
        if self.value_range is not None and not file.is_scaled:
            (low, high), from_file = self.value_range, False
        key = image.info.get("transparency")
        if alpha is None and isinstance(key, int | tuple):
            alpha = (np.atleast_3d(values) != np.array(key)).any(2).astype(np.float64)
        if file.is_white_zero:
            low, high = high, low
        return Samples(values, low, high, alpha, premultiplied, from_file)

    def _opaque(self, file: Opened) -> Image.Image:
        samples = self.samples(file)
        colour: Any = ImageColor.getrgb(self.background)[:3]
        if samples is not None:
            return samples.over(colour)
        image = file.image
        if image.has_transparency_data:
            return _over(image, colour)
        if image.mode == "LAB":
            return _from_lab(image)
        return image.convert("L" if image.mode in ("1", "L") else "RGB")

    def _range(self, file: Opened) -> tuple[float, float, bool]:
        """The values of black and white in grey pixels of more than eight bits, and whether the file says so."""
        mode = file.image.mode
        if mode in _GREY16 and file.image.format == "FITS":
            raise Refused(
                f"{file.path}: Pillow reads FITS of 16 bits in the wrong byte order. Convert it to TIFF or PNG."
            )
        if mode in _GREY16:
            return 0.0, 2.0**file.bits - 1.0, True
        if file.is_scaled:
            return 0.0, FULL, True
        if self.value_range is None:
            raise Refused(
                f"{file.path} contains {'floats' if mode == 'F' else 'integers of 32 bits'} (Pillow's mode {mode}), but"
                " their range is unknown. Set data.init_args.value_range to the values of black and white, such as"
                f" {'[0.0, 1.0]' if mode == 'F' else '[0, 65535]'}."
            )
        return *self.value_range, False


def colour_problem(background: str) -> str | None:
    """What was expected if this is not a colour; None if it is one."""
    try:
        ImageColor.getrgb(background)
    except (ValueError, AttributeError, TypeError):
        return "a colour such as white, black or '#808080'"
    return None


def _over(image: Image.Image, background: Any) -> Image.Image:
    """An eight-bit image over a background."""
    clear = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(clear, mask=clear.getchannel("A"))
    return canvas


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    return ImageCms.applyTransform(image, transform)  # type: ignore[return-value]
