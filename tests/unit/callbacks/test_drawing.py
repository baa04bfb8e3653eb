import io
import math

import numpy as np
import pytest
import torch

from callbacks.drawing import GAP, LEAST_SIZE, WIDE_GAP, arrange, new_figure, rasterize, sheet
from lit_vae.images import from_uint8


def levels(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 28, 20), (1, 5, 70)])
def test_every_pixel_is_a_square_of_its_own_level_and_the_rest_is_white(channels, height, width):
    u = levels(2, 3, channels, height, width)
    picture = sheet(from_uint8(u))
    assert picture.mode == ("L" if channels == 1 else "RGB")
    factor = max(1, math.ceil(LEAST_SIZE / max(height, width)))
    got = np.asarray(picture).reshape(*np.asarray(picture).shape[:2], channels)
    expected = np.full_like(got, 255)
    for row in range(2):
        for column in range(3):
            y, x = GAP + row * (height * factor + GAP), GAP + column * (width * factor + GAP)
            block = np.kron(u[row, column].permute(1, 2, 0).numpy(), np.ones((factor, factor, 1), np.uint8))
            expected[y : y + height * factor, x : x + width * factor] = block
    assert got.shape == (2 * height * factor + 3 * GAP, 3 * width * factor + 4 * GAP, channels)
    np.testing.assert_array_equal(got, expected)


def test_values_out_of_range_are_clamped_and_a_flat_image_is_not_stretched():
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-3.0, 0.0, 3.0)]).unsqueeze(0)
    pixels = np.asarray(sheet(images))[GAP + 1]
    assert [pixels[GAP + 1 + i * (64 + GAP)] for i in range(3)] == [0, 128, 255]


def test_labels_and_wide_lines_move_images_and_change_none_of_their_pixels():
    images = from_uint8(levels(3, 2, 1, 64, 64))
    plain = np.asarray(sheet(images))
    labelled = np.asarray(sheet(images, ["z1", "z20", "z3"], ["left", "right"], wide_after_rows=(0, 2)))
    left, top = labelled.shape[1] - plain.shape[1], labelled.shape[0] - plain.shape[0] - (WIDE_GAP - GAP)
    assert left > 0
    assert top > 0
    first, rest = GAP + 64, GAP + 64 + WIDE_GAP
    np.testing.assert_array_equal(labelled[top : top + first, left:], plain[:first])
    np.testing.assert_array_equal(labelled[top + rest :, left:], plain[first + GAP :])
    assert (labelled[top + first : top + rest, left:] == 255).all()  # no wider line after the last row
    assert (labelled[:top, left:] < 128).any()
    assert (labelled[top:, :left] < 128).any()


def test_more_than_three_channels_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"images of 1 or 3 channels can be drawn, these have 4\. Remove the picture"):
        sheet(torch.zeros(1, 1, 4, 8, 8))


@pytest.mark.parametrize(("n", "shape"), [(64, (8, 8)), (32, (4, 8)), (10, (2, 5)), (7, (3, 3)), (1, (1, 1))])
def test_arranged_in_reading_order_with_white_at_the_end(n, shape):
    images = torch.arange(n, dtype=torch.float32).div(n).reshape(n, 1, 1, 1).expand(n, 1, 2, 2)
    arranged = arrange(images)
    assert arranged.shape[:2] == shape
    torch.testing.assert_close(arranged.flatten(0, 1)[:n], images, rtol=0, atol=0)
    assert (arranged.flatten(0, 1)[n:] == 1.0).all()


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
def test_a_sheet_of_64_small_images_is_a_small_file_even_of_noise(channels, size):
    buffer = io.BytesIO()
    sheet(from_uint8(levels(8, 8, channels, size, size))).save(buffer, format="PNG")
    assert buffer.tell() < 300_000


def test_figures_need_no_window_and_leave_pyplot_alone():
    import sys

    before = "matplotlib.pyplot" in sys.modules
    figure = new_figure(2.0, 1.0)
    figure.add_subplot().plot([0, 1], [0, 1], color="black")
    picture = rasterize(figure)
    assert picture.mode == "RGB"
    assert np.asarray(picture).min() < 50
    assert ("matplotlib.pyplot" in sys.modules) == before
