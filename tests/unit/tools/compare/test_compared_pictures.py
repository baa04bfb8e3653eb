"""Where runs differ most, how wrong they are on one scale, and who was shown the same images."""

import math

import pytest
import torch
from compare_helpers import entry

from lit_vae.images import to_uint8
from lit_vae.tools.compare.pictures import Crop, Pictures, choose_crop, group_by_images, groups_of, psnr
from lit_vae.tools.compare.sheets import coloured, reconstruction_sheet, sample_sheets, stack, to_picture


def images(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return 2.0 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) - 1.0


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 9), (12, 12)])
def test_the_crop_is_where_runs_differ_most(top: int, left: int) -> None:
    x = images(1, 3, 18, 18)[0]
    one, other = x.clone(), x + 0.01
    other[:, top : top + 6, left : left + 6] += 0.5
    crop = choose_crop(torch.stack([one, other]), x)
    assert crop == Crop(top, left, 6)
    assert torch.equal(crop.of(x), x[:, top : top + 6, left : left + 6])


def test_where_all_are_equally_wrong_is_no_place_to_look_at() -> None:
    x = images(1, 1, 12, 12)[0]
    both = x.clone()
    both[:, :4, :4] += 1.0  # the same error in both
    other = both.clone()
    other[:, 8:, 8:] += 0.1
    assert choose_crop(torch.stack([both, other]), x) == Crop(8, 8, 4)
    assert choose_crop(both.unsqueeze(0), x) == Crop(0, 0, 4)  # one alone is compared with the image


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 4), (28, 28, 9), (64, 32, 11), (3, 5, 3)])
def test_a_crop_is_a_third_of_the_shorter_side_and_within_the_image(height: int, width: int, side: int) -> None:
    x = images(3, 1, height, width)
    crop = choose_crop(x, x[0])
    assert crop.side == side
    assert crop.of(x).shape == (3, 1, side, side)


def test_errors_are_means_of_channels_on_one_scale() -> None:
    x = torch.zeros(2, 3, 4, 4)
    first, second = x.clone(), x.clone()
    first[0, :, 0, 0] = torch.tensor([0.3, -0.6, 0.0])
    second[1, 0, 1, 2] = 0.9
    (only,) = group_by_images([Pictures(x=x, x_hat=first), Pictures(x=x, x_hat=second)])
    assert float(only.errors[0][0, 0, 0]) == pytest.approx(127.5 * 0.3)
    assert float(only.errors[1][1, 1, 2]) == pytest.approx(127.5 * 0.3)
    assert float(only.errors[0].sum() + only.errors[1].sum()) == pytest.approx(2 * 127.5 * 0.3)
    assert only.most_error == pytest.approx(127.5 * 0.3)


def test_colours_go_from_black_to_light_and_are_the_same_for_the_same_error() -> None:
    colours = coloured(torch.tensor([[0.0, 5.0, 10.0]]), 10.0)
    assert colours.shape == (3, 1, 3)
    brightness = colours.mean(0)[0].tolist()
    assert brightness == sorted(brightness)
    assert to_uint8(colours[:, 0, 0]).tolist() == [0, 0, 4]  # of the colour map inferno
    assert torch.equal(coloured(torch.tensor([[5.0]]), 10.0)[:, 0, 0], colours[:, 0, 1])
    assert torch.equal(coloured(torch.zeros(1, 1), 0.0)[:, 0, 0], colours[:, 0, 0])


def test_runs_are_grouped_by_what_they_were_shown() -> None:
    x = images(2, 1, 8, 8)
    noise = x + 1.0 / 127.5  # of dequantization: no other picture
    other, larger = images(2, 1, 8, 8, seed=1), images(2, 1, 9, 8)
    pictures = [Pictures(x=x, x_hat=x), Pictures(x=other, x_hat=other), Pictures(), Pictures(x=noise, x_hat=x)]
    pictures.append(Pictures(x=larger))
    groups = group_by_images(pictures)
    assert [g.members for g in groups] == [(0, 3), (1,), (4,)]
    assert groups_of(groups, 5) == [0, 1, None, 0, 2]
    assert float(groups[0].errors[3].mean()) == pytest.approx(1.0, rel=1e-4)  # of its own image
    assert groups[2].errors == {}
    assert groups[2].crops == ()


def test_psnr_is_that_of_each_image() -> None:
    x = images(3, 3, 8, 8)
    x_hat = x + torch.tensor([0.1, 0.2, 0.0]).view(3, 1, 1, 1)
    assert psnr(x, x_hat) == pytest.approx([20 * math.log10(2 / 0.1), 20 * math.log10(2 / 0.2), 99.0], abs=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_the_true_pixels(channels: int) -> None:
    x = images(1, channels, 5, 7)[0]
    picture = to_picture(x)
    assert picture.size == (7, 5)
    assert picture.getpixel((6, 4)) == (int(to_uint8(x)[0, 4, 6]) if channels == 1 else tuple(to_uint8(x)[:, 4, 6]))


def test_the_sheet_has_every_image_its_crop_and_its_error() -> None:
    x, x_hat = torch.full((2, 1, 64, 64), -1.0), torch.full((2, 1, 64, 64), -1.0)
    x_hat[0] = 0.0
    pictures = [Pictures(x=x, x_hat=x), Pictures(x=x), Pictures(x=x, x_hat=x_hat)]
    (only,) = group_by_images(pictures)
    sheet = reconstruction_sheet(
        only, pictures, [entry(name) for name in ("exact", "none", "a_very_long_name_of_a_run")]
    )
    middles = [(sheet.width - 64 - 130 * (2 - c), 15 + 19 + 64) for c in range(3)]  # original, exact, the long one
    assert [sheet.getpixel(at)[0] for at in middles] == [0, 0, 128]
    errors = [sheet.getpixel((x, y + 2 * 130))[:2] for x, y in middles]
    assert errors[0] == (255, 255)  # the original has none
    assert errors[1] == (0, 0)
    assert errors[2][0] > 240  # the end of the scale


def test_samples_of_other_shapes_are_on_sheets_of_their_own() -> None:
    pictures = [Pictures(samples=images(4, 1, 8, 8)), Pictures(), Pictures(samples=images(4, 3, 64, 64))]
    sheets = sample_sheets(pictures, [entry(name) for name in "abc"])
    assert [sheet.mode for sheet in sheets] == ["L", "RGB"]
    stacked = stack(sheets)
    assert stacked.mode == "RGB"
    assert stacked.height == sheets[0].height + sheets[1].height + 24
    assert stacked.getpixel((0, sheets[0].height + 5)) == (255, 255, 255)
