"""Every mode and bit depth: the levels are computed by hand from the array that the file was written of."""

import colorsys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import write_png, write_tiff
from PIL import Image

from lit_vae.data.decode import Decoder
from lit_vae.data.opened import Refused, Unreadable

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")  # it alone holds I;16L and I;16B

Array = np.ndarray
Write = Callable[[Path], Path]

RNG = np.random.default_rng(0)
L, LA, RGB, RGBA = (RNG.integers(0, 256, (6, 9, channels), dtype=np.uint8) for channels in (1, 2, 3, 4))
L16, LA16, RGB16, RGBA16 = (RNG.integers(0, 65536, (6, 9, channels), dtype=np.uint16) for channels in (1, 2, 3, 4))
G = L16[..., 0]
G12 = G >> 4
MULTIPLIED = np.dstack([(RGBA16[..., :3] * (RGBA16[..., 3:] / 65535)).astype(np.uint16), RGBA16[..., 3]])
FEW = RNG.integers(0, 256, (6, 9))
PALETTE = RNG.integers(0, 256, (4, 3), dtype=np.uint8)
COLOURS = FEW % 4
# within the colours that sRGB has
LAB = np.stack(np.broadcast_arrays(np.arange(60, 240, 20), *np.mgrid[118:136:3, 118:145:3]), -1).astype(np.uint8)
FLOATS = RNG.uniform(-0.5, 1.5, (6, 9)).astype(np.float32)
INTEGERS = RNG.integers(-70_000, 70_000, (6, 9), dtype=np.int32)


def grey(levels: Array) -> Array:
    """The three channels of grey levels ``(H, W)``."""
    return np.repeat(np.asarray(levels, dtype=float)[..., None], 3, 2)


def over(levels: Array, alpha: Array, background: tuple[int, int, int] = (255, 255, 255)) -> Array:
    """``alpha c + (1 - alpha) background``, with alpha in [0, 1]."""
    return alpha[..., None] * levels + (1 - alpha[..., None]) * np.array(background)


def ycbcr(v: Array) -> Array:
    """JFIF."""
    y, cb, cr = v[..., 0], v[..., 1] - 128.0, v[..., 2] - 128.0
    rgb = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]
    return np.stack(rgb, -1).clip(0, 255)


def lab(v: Array) -> Array:
    """CIELAB of white D50 in eight bits to sRGB, by Bradford's adaptation."""
    light, a, b = v[..., 0] / 2.55, v[..., 1] - 128.0, v[..., 2] - 128.0
    fy = (light + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1.0, 0.82521]
    to_linear = [[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]]
    linear = (xyz @ np.array(to_linear).T).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def saved(mode: str, levels: Array, suffix: str, **options: object) -> Write:
    """Let Pillow write what it writes itself."""

    def write(path: Path) -> Path:
        image = Image.frombytes(mode, levels.shape[1::-1], np.ascontiguousarray(levels).tobytes())
        if mode in ("P", "PA"):
            image.putpalette(PALETTE.tobytes())
        image.save(path.with_suffix(suffix), **options)  # type: ignore[arg-type]
        return path.with_suffix(suffix)

    return write


def png(*arguments: object) -> Write:
    return lambda path: write_png(path.with_suffix(".png"), *arguments)  # type: ignore[arg-type]


def tiff(*arguments: object, **tags: int) -> Write:
    return lambda path: write_tiff(path.with_suffix(".tif"), *arguments, **tags)  # type: ignore[arg-type]


def pgm(most: int) -> Write:
    def write(path: Path) -> Path:
        path.write_bytes(b"P5 9 6 %d\n" % most + (G.astype(int) * most // 65535).astype(">u2").tobytes())
        return path

    return write


def big(levels: Array) -> bytes:
    return levels.astype(">u2").tobytes()


def low_bits(bits: int) -> dict[str, tuple[Write, Array, float]]:
    values, step = FEW % 2**bits, 255 // (2**bits - 1)
    return {
        f"grey, {bits} bits": (png(values, bits, 0), grey(values * step), 0),
        f"grey, {bits} bits, 1 is clear": (png(values, bits, 0, b"\0\1"), over(grey(values * step), values != 1), 0),
    }


def both_orders(order: str) -> dict[str, tuple[Write, Array, float]]:
    c, k = RGBA16[..., :3] / 65535, RGBA16[..., 3:] / 65535
    alpha = RGBA16[..., 3] / 65535
    kinds = {
        "grey": (tiff(G, 1, order), grey(G / 257), 0.5),
        "RGB": (tiff(RGB16, 2, order), RGB16 / 257, 0.5),
        "RGBA": (tiff(RGBA16, 2, order, extra=2), over(RGBA16[..., :3] / 257, alpha), 0.5),
        "RGBa": (tiff(MULTIPLIED, 2, order, extra=1), MULTIPLIED[..., :3] / 257 + over(0 * c, alpha), 0.5),
        "RGBX": (tiff(RGBA16, 2, order, extra=0), RGBA16[..., :3] / 257, 0.5),
        "CMYK": (tiff(RGBA16, 5, order), 255 * (1 - c) * (1 - k), 0.5),
    }
    return {f"{kind}, TIFF of 16 bits, {order}": case for kind, case in kinds.items()}


# by name: what writes it, the levels, and how far they may be off: by the rounding, or by one where Pillow rounds twice
CASES: dict[str, tuple[Write, Array, float]] = {
    "1": low_bits(1)["grey, 1 bits"],
    "L": (saved("L", L, ".png"), grey(L[..., 0]), 0),
    "LA": (saved("LA", LA, ".png"), over(grey(LA[..., 0]), LA[..., 1] / 255), 0.5),
    "LA, TIFF": (saved("LA", LA, ".tif"), over(grey(LA[..., 0]), LA[..., 1] / 255), 0.5),
    "RGB": (saved("RGB", RGB, ".png"), RGB, 0),
    "RGBA": (saved("RGBA", RGBA, ".png"), over(RGBA[..., :3], RGBA[..., 3] / 255), 0.5),
    "RGBX": (saved("RGBX", RGBA, ".tif"), RGBA[..., :3], 0),
    "CMYK": (saved("CMYK", RGBA, ".tif"), (255 - RGBA[..., :3].astype(float)) * (255.0 - RGBA[..., 3:]) / 255, 0.5),
    "YCbCr": (saved("YCbCr", RGB, ".tif"), ycbcr(RGB), 1),
    "LAB": (saved("LAB", LAB ^ np.array([0, 128, 128], np.uint8), ".tif"), lab(LAB), 2.5),  # a and b have a sign
    "P": (saved("P", COLOURS.astype(np.uint8), ".png"), PALETTE[COLOURS], 0),
    "P, 2 bits": (png(COLOURS, 2, 3, b"", PALETTE.tobytes()), PALETTE[COLOURS], 0),
    "P, opacity of each colour": (
        saved("P", COLOURS.astype(np.uint8), ".png", transparency=b"\xff\x80\x00"),
        over(PALETTE[COLOURS], np.array([255, 128, 0, 255])[COLOURS] / 255),
        0.5,
    ),
    "P, one colour clear": (
        saved("P", COLOURS.astype(np.uint8), ".gif", transparency=2),
        over(PALETTE[COLOURS], COLOURS != 2),
        0,
    ),
    "PA": (
        saved("PA", np.dstack([COLOURS, LA[..., 1]]).astype(np.uint8), ".tif"),
        over(PALETTE[COLOURS], LA[..., 1] / 255),
        0.5,
    ),
    **{name: case for bits in (1, 2, 4, 8) for name, case in low_bits(bits).items()},
    "RGB, one colour clear": (
        png(RGB, 8, 2, big(RGB[0, 0])),
        over(RGB, ~(RGB[0, 0] == RGB).all(2)),
        0,
    ),
    "grey, 16 bits": (png(G, 16, 0), grey(G / 257), 0.5),
    "grey, 16 bits, one level clear": (png(G, 16, 0, big(G[0, :1])), over(grey(G / 257), G[0, 0] != G), 0.5),
    "grey and alpha, 16 bits": (png(LA16, 16, 4), over(grey(LA16[..., 0] / 257), LA16[..., 1] / 65535), 0.5),
    "RGB, 16 bits": (png(RGB16, 16, 2), RGB16 / 257, 0.5),
    "RGB, 16 bits, one colour clear": (
        png(RGB16, 16, 2, big(RGB16[0, 0])),
        over(RGB16 / 257, ~(RGB16[0, 0] == RGB16).all(2)),
        0.5,
    ),
    "RGBA, 16 bits": (png(RGBA16, 16, 6), over(RGBA16[..., :3] / 257, RGBA16[..., 3] / 65535), 0.5),
    **both_orders("<"),
    **both_orders(">"),
    "grey, 16 bits, white is 0": (tiff(G, 0), grey(255 - G / 257), 0.5),
    "grey, 12 bits": (tiff(G12, 1, bits=12), grey(G12 * (255 / 4095)), 0.5),
    "grey, lies on its side": (saved("L", L, ".tif", tiffinfo={274: 8}), grey(np.rot90(L[..., 0])), 0),
    "grey, 16 bits, lies on its side": (tiff(G, 1, orientation=6), grey(np.rot90(G, -1) / 257), 0.5),
    "RGB, 16 bits, lies on its side": (tiff(RGB16, 2, orientation=6), np.rot90(RGB16, -1) / 257, 0.5),
    "PGM of 16 bits": (pgm(65535), grey(G / 257), 0.5),
    "PGM of 12 bits": (pgm(4095), grey((G.astype(int) * 4095 // 65535) * (255 / 4095)), 0.5),
    "I;16": (saved("I;16", G.astype("<u2"), ".im"), grey(G / 257), 0.5),
    "I;16L": (saved("I;16L", G.astype("<u2"), ".im"), grey(G / 257), 0.5),
    "I;16B": (saved("I;16B", G.astype(">u2"), ".im"), grey(G / 257), 0.5),
}


def decoded(path: Path, channels: int = 3, **options: object) -> Array:
    image = Decoder(channels, **options)(path)  # type: ignore[arg-type]
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("name", CASES)
def test_levels_are_those_of_the_array_that_was_saved(name: str, tmp_path: Path) -> None:
    write, expected, most = CASES[name]
    path = write(tmp_path / "image")
    np.testing.assert_allclose(decoded(path), expected, rtol=0, atol=most + 1e-6)
    luma = np.asarray(expected) @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as everybody's grey
    np.testing.assert_allclose(decoded(path, channels=1), luma, rtol=0, atol=most + 0.51)


def test_every_mode_of_pillow_is_tried_or_does_not_come_from_a_file() -> None:
    in_memory = {"HSV", "La", "RGBa", "I;16N"}
    by_range = {"I", "F"}
    assert set(Image.MODES) <= {name.partition(",")[0] for name in CASES} | in_memory | by_range


@pytest.mark.parametrize("background", ["black", "#008080", "rgb(255, 0, 0)"])
def test_what_is_clear_shows_the_background(background: str, tmp_path: Path) -> None:
    colour = {"black": (0, 0, 0), "#008080": (0, 128, 128), "rgb(255, 0, 0)": (255, 0, 0)}[background]
    for i, (write, levels, alpha) in enumerate(
        [
            (png(RGBA, 8, 6), RGBA[..., :3], RGBA[..., 3] / 255),
            (png(RGBA16, 16, 6), RGBA16[..., :3] / 257, RGBA16[..., 3] / 65535),
            (png(G, 16, 0, big(G[0, :1])), grey(G / 257), G[0, 0] != G),
            (saved("P", COLOURS.astype(np.uint8), ".png", transparency=1), PALETTE[COLOURS], COLOURS != 1),
        ]
    ):
        path = write(tmp_path / str(i))
        expected = over(levels, alpha, colour)
        np.testing.assert_allclose(decoded(path, background=background), expected, rtol=0, atol=0.5 + 1e-6)


@pytest.mark.parametrize(
    ("write", "values", "span"),
    [
        (saved("F", FLOATS, ".tif"), FLOATS, (0.0, 1.0)),
        (saved("F", FLOATS, ".im"), FLOATS, (-0.5, 1.5)),
        (saved("F", FLOATS, ".pfm"), FLOATS, (0.0, 1.0)),
        (saved("I", INTEGERS, ".tif"), INTEGERS, (-1000.0, 65535.0)),
        (png(G12, 16, 0), G12, (0.0, 4095.0)),
        (tiff(G, 0), 65535.0 - G, (0.0, 65535.0)),
        (tiff(RGB16 >> 4, 2, ">"), RGB16 >> 4, (0.0, 4095.0)),
    ],
)
def test_another_range_is_taken_from_the_option(
    write: Write, values: Array, span: tuple[float, float], tmp_path: Path
) -> None:
    levels = 255 * (np.asarray(values, dtype=float) - span[0]) / (span[1] - span[0])
    expected = levels.clip(0, 255) if levels.ndim == 3 else grey(levels.clip(0, 255))
    found = decoded(write(tmp_path / "image"), value_range=span)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.5 + 1e-4)


def test_the_option_does_not_touch_eight_bits_or_files_that_name_their_range(tmp_path: Path) -> None:
    for i, (write, expected) in enumerate([(png(RGB, 8, 2), RGB), (pgm(65535), grey(G / 257))]):
        found = decoded(write(tmp_path / str(i)), value_range=(0.0, 4095.0))
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.5)


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (saved("F", FLOATS, ".tif"), r"contains floats \(Pillow's mode F\).*value_range to .*, such as \[0\.0, 1\.0\]"),
        (
            saved("I", INTEGERS, ".tif"),
            r"contains integers of 32 bits \(Pillow's mode I\).*data\.init_args\.value_range",
        ),
    ],
)
def test_a_range_that_nothing_names_is_never_guessed(write: Write, what: str, tmp_path: Path) -> None:
    path = write(tmp_path / "image")
    with pytest.raises(Refused, match=what) as error:
        Decoder(3)(path)
    assert str(path) in str(error.value)


def test_modes_that_no_file_has_are_right_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image").touch()
    straight = Image.frombytes("RGBA", (9, 6), RGBA.tobytes())
    hsv = Image.frombytes("HSV", (9, 6), RGB.tobytes())
    colours = [colorsys.hsv_to_rgb(*pixel) for pixel in RGB.reshape(-1, 3) / 255]
    la = Image.frombytes("LA", (9, 6), LA.tobytes())
    expected = {
        "RGBa": (straight.convert("RGBa"), over(RGBA[..., :3], RGBA[..., 3] / 255), 1.5),
        "La": (la.convert("La"), over(grey(LA[..., 0]), LA[..., 1] / 255), 1.5),
        "HSV": (hsv, 255 * np.array(colours).reshape(6, 9, 3), 1.5),
    }
    for mode, (image, levels, most) in expected.items():
        monkeypatch.setattr(Image, "open", lambda stream, image=image: image.copy())
        assert image.mode == mode
        np.testing.assert_allclose(decoded(tmp_path / "image"), levels, rtol=0, atol=most)
    monkeypatch.setattr(Image, "open", lambda stream: hsv)
    hsv._mode = "XYZ"
    with pytest.raises(Refused, match=r"Pillow's mode XYZ is not read\. Convert the file to PNG\."):
        Decoder(3)(tmp_path / "image")


def test_fits_of_16_bits_is_refused_since_pillow_turns_its_bytes(tmp_path: Path) -> None:
    cards = {"SIMPLE": "T", "BITPIX": "16", "NAXIS": "2", "NAXIS1": "4", "NAXIS2": "2"}
    header = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()) + "END"
    (tmp_path / "sky.fits").write_bytes(header.ljust(2880).encode() + bytes(2880))
    with pytest.raises(Refused, match=r"sky\.fits: .*FITS of 16 bits"):
        Decoder(1)(tmp_path / "sky.fits")


def test_values_that_are_not_finite_are_no_image(tmp_path: Path) -> None:
    path = saved("F", np.where(FLOATS > 1, np.float32("nan"), FLOATS), ".tif")(tmp_path / "image")
    with pytest.raises(Unreadable, match="NaN") as error:
        Decoder(3, value_range=(0.0, 1.0))(path)
    assert error.value.kind == "with values that are not finite"


def test_any_failure_of_pillow_is_a_file_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved("RGB", RGB, ".png")(tmp_path / "image")
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 20, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(Unreadable) as error:
            Decoder(3)(path)
        assert error.value.kind == "corrupt"
    path.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(Unreadable, match=r"MAX_IMAGE_PIXELS \(=20\)") as error:
        Decoder(3)(path)
    assert error.value.kind == "above Pillow's size limit"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    with pytest.raises(Unreadable, match="HEIF") as error:
        Decoder(3)(path)
    assert error.value.kind == "of a format that lit_vae does not read"


def test_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(tmp_path / "moves.gif")[0, 0].tolist() == [255, 0, 0]
