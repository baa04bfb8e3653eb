from pathlib import Path

import numpy as np
import pytest
from data_helpers import write_gradient
from PIL import Image

from lit_vae.data.pictures import Geometry


def pixel_grid(image: Image.Image) -> tuple[list[int], list[int]]:
    """Return columns and rows that a piece of a gradient came from."""
    pixels = np.asarray(image)
    return pixels[0, :, 0].tolist(), pixels[:, 0, 1].tolist()


@pytest.fixture
def gradient(tmp_path: Path) -> Image.Image:
    """Red is the column, green is the row; 64 x 48."""
    return Image.open(write_gradient(tmp_path / "gradient.png"))


def test_center_crop_resizes_the_shorter_side(gradient: Image.Image) -> None:
    columns, rows = pixel_grid(Geometry(48)(gradient))
    assert (columns, rows) == (list(range(8, 56)), list(range(48)))
    columns, rows = pixel_grid(Geometry(12)(gradient))
    np.testing.assert_allclose(columns, 8 + 4 * np.arange(12) + 1.5, atol=1)
    np.testing.assert_allclose(rows, 4 * np.arange(12) + 1.5, atol=1)
    columns, _ = pixel_grid(Geometry(12, resize=24)(gradient))
    np.testing.assert_allclose(columns, 20 + 2 * np.arange(12) + 0.5, atol=1)


def test_no_crop_squeezes(gradient: Image.Image) -> None:
    columns, rows = pixel_grid(Geometry(16, "none")(gradient))
    np.testing.assert_allclose(columns[1:-1], (4 * np.arange(16) + 1.5)[1:-1], atol=1)
    np.testing.assert_allclose(rows[1:-1], (3 * np.arange(16) + 1)[1:-1], atol=1)


@pytest.mark.parametrize(
    ("position", "left", "top"),
    [(None, 24, 16), ((0.0, 0.0), 0, 0), ((0.9999, 0.9999), 48, 32), ((0.5, 0.25), 24, 8)],
)
def test_random_crop_is_at_full_resolution(
    gradient: Image.Image, position: tuple[float, float] | None, left: int, top: int
) -> None:
    columns, rows = pixel_grid(Geometry(16, "random")(gradient, position))
    assert (columns, rows) == (list(range(left, left + 16)), list(range(top, top + 16)))


def test_small_images_are_enlarged(gradient: Image.Image) -> None:
    assert Geometry(96, "random")(gradient, (0.5, 0.5)).size == (96, 96)
    assert Geometry(96, "center")(gradient).size == (96, 96)
