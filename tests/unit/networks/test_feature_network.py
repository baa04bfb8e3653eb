"""The classifier whose maps are features, and the shifts that it is trained with."""

import pytest
import torch

from lit_vae.networks import RandomTranslation, ResidualFeatures


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 9, 14), (1, 4, 4)])
def test_maps_halve_and_belong_to_one_image_each(float64: None, channels: int, height: int, width: int) -> None:
    network = ResidualFeatures(channels, 5, widths=[8, 12, 16])
    x = torch.randn(3, channels, height, width)
    maps = network.maps(x)
    assert [tuple(h.shape) for h in maps] == [
        (3, 8, height, width), (3, 12, height // 2, width // 2), (3, 16, height // 4, width // 4),
    ]  # fmt: skip
    assert all((h >= 0.0).all() and (h > 0.0).any() for h in maps)
    for together, alone in zip(maps, network.maps(x[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(network.pooled(x), maps[-1].flatten(2).max(2).values)
    torch.testing.assert_close(network(x), network.pooled(x) @ network.head.weight.T + network.head.bias)


def test_blocks_are_at_every_resolution() -> None:
    one, two = (ResidualFeatures(1, 5, widths=[4, 8], blocks=blocks) for blocks in (1, 2))
    assert [len(stage) for stage in one.stages] == [1, 1]
    assert [len(stage) for stage in two.stages] == [2, 2]


@pytest.mark.parametrize(("stride", "smallest"), [(1, 4), (2, 7), (3, 10)])
def test_an_image_below_the_smallest_size_leaves_nothing(stride: int, smallest: int) -> None:
    network = ResidualFeatures(1, 5, widths=[4, 4, 4], stride=stride)
    assert network.smallest_size == smallest
    assert [h.shape[-1] for h in network.maps(torch.zeros(1, 1, smallest, smallest))] == [4, 2, 1]
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 1, smallest, smallest - 1))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_pixel_reaches_the_first_map(float64: None, stride: int) -> None:
    x = torch.zeros(1, 1, 12, 12, requires_grad=True)
    ResidualFeatures(1, 5, widths=[4], stride=stride).stem(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()


def test_a_blank_image_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    ResidualFeatures(1, 5)(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("given", [{"widths": []}, {"widths": [8, 0]}, {"blocks": 0}])
def test_widths_and_blocks_that_make_no_network_are_refused(given: dict[str, list[int] | int]) -> None:
    (argument,) = given
    with pytest.raises(ValueError, match=rf"ResidualFeatures: {argument} \(=.*must be"):
        ResidualFeatures(1, 5, **given)  # type: ignore[arg-type]


def test_a_translation_shifts_each_image_and_repeats_its_border() -> None:
    torch.manual_seed(0)
    x = torch.randn(200, 2, 5, 6)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    shifted = RandomTranslation(2).train()(x)
    found = torch.zeros(5, 5, dtype=torch.int64)
    for row in range(5):
        for column in range(5):
            found[row, column] = (shifted == padded[..., row : row + 5, column : column + 6]).flatten(1).all(1).sum()
    assert found.sum() == 200  # each image is one of the 25 shifts
    assert (found > 0).all()


def test_in_evaluation_nothing_is_shifted() -> None:
    x = torch.randn(3, 1, 4, 4)
    assert RandomTranslation(1).eval()(x) is x


def test_a_translation_by_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RandomTranslation: max_pixels \(=0\) must be at least 1\."):
        RandomTranslation(0)
