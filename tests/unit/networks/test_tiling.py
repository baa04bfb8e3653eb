"""Tiles: where they are, how they blend, and that nothing of the image is lost between them."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks import LDMDecoder, LDMEncoder
from lit_vae.networks.tiling import _fading, decode_tiled, encode_tiled

EXACT = {"rtol": 1e-12, "atol": 1e-12}
pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(("tile", "overlap"), [(8, 4), (8, 2), (5, 0), (1, 0), (7, 3), (64, 16)])
def test_weights_sum_to_one_and_tiles_reach_the_ends(tile: int, overlap: int, scale: int) -> None:
    for length in range(1, 40):
        total = torch.zeros(length * scale)
        fading = _fading(length, tile, overlap, scale)
        for start, stop, weight in fading:
            assert 0 <= start < stop <= length
            assert stop - start == min(tile, length)
            assert (weight > 0.0).all()
            total[start * scale : stop * scale] += weight
        torch.testing.assert_close(total, torch.ones_like(total), **EXACT)
        assert all(b[0] <= a[1] - overlap for a, b in pairwise(fading))
        fewest = 1 if length <= tile else 1 + -(-(length - tile) // (tile - overlap))
        assert len(fading) == fewest


def test_a_seam_fades_linearly() -> None:
    (_, _, first), (_, _, second) = _fading(12, 8, 4, 1)
    torch.testing.assert_close(first, torch.tensor([1, 1, 1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8]), **EXACT)
    torch.testing.assert_close(second, first.flip(0), **EXACT)


def test_no_seam_on_a_ramp() -> None:
    """Nor anywhere else, by networks that only halve or double: what overlaps is the same in both tiles."""
    ramp = torch.arange(40.0) + torch.arange(24.0)[:, None]
    x = ramp.expand(2, 3, 24, 40)
    for network, tiled in (
        (lambda x: F.avg_pool2d(x, 2), encode_tiled),
        (lambda z: F.interpolate(z, scale_factor=2.0, mode="nearest"), decode_tiled),
    ):
        torch.testing.assert_close(tiled(network, x, 2, tile=8, overlap=4), network(x), **EXACT)


def test_steps_between_tiles_become_slopes() -> None:
    """A network that adds a number of its own to each tile: neighbours differ by no more than the fading allows."""
    tiles = iter(range(100))
    y = encode_tiled(lambda x: torch.full_like(x, next(tiles) % 2), torch.zeros(1, 1, 8, 36), 1, tile=8, overlap=4)
    assert y.diff(dim=3).abs().max() <= 0.25 + 1e-12
    assert (y.amin(), y.amax()) == (0.0, 1.0)


@pytest.mark.parametrize(("tiled", "factor"), [(encode_tiled, 4), (decode_tiled, 4)])
def test_away_from_the_ends_of_tiles_it_is_the_whole(tiled: object, factor: int) -> None:
    """For a network that sees a few positions: exactly; and exactly everywhere if it looks not beyond its own."""
    torch.manual_seed(2)
    encodes = tiled is encode_tiled
    resample: nn.Module = nn.AvgPool2d(factor) if encodes else nn.Upsample(scale_factor=factor, mode="nearest")
    x = torch.randn(1, 2, *((48, 80) if encodes else (12, 20)))
    pointwise = nn.Sequential(nn.Conv2d(2, 3, 1), nn.SiLU(), resample)
    torch.testing.assert_close(tiled(pointwise, x, factor, tile=8, overlap=4), pointwise(x), **EXACT)  # type: ignore[operator]

    nearby = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), resample)
    error = (tiled(nearby, x, factor, tile=8, overlap=4) - nearby(x)).abs().amax((0, 1))  # type: ignore[operator]
    on_map = F.max_pool2d(error[None], 1 if encodes else factor)[0]
    rows, columns = (torch.tensor([_near_an_end(i, n) for i in range(n)]) for n in on_map.shape)
    near = rows[:, None] | columns
    assert (on_map[~near] < 1e-12).all()
    assert (on_map[near] > 1e-9).all()  # where tiles do end, zeros take the place of their neighbours
    assert (~near).any()


def _near_an_end(i: int, length: int) -> bool:
    """Whether a tile, of 8 with overlaps of 4, has an end within the image at this position."""
    return any(i in (a, b - 1) and i not in (0, length - 1) for a, b, _ in _fading(length, 8, 4, 1))


def test_one_tile_is_the_network() -> None:
    torch.manual_seed(0)
    init_args = {"width": 4, "multipliers": [1, 2], "blocks": 1, "norm_groups": 2}
    encoder, decoder = LDMEncoder((3, 8, 8), (2, 4, 4), **init_args), LDMDecoder((2, 4, 4), (3, 8, 8), **init_args)
    x = torch.randn(2, 3, 12, 16)
    z = encode_tiled(encoder, x, 2, tile=8, overlap=2)
    assert torch.equal(z, encoder(x))
    assert torch.equal(decode_tiled(decoder, z, 2, tile=8, overlap=2), decoder(z))


def test_the_network_never_sees_more_than_a_tile() -> None:
    seen: list[tuple[int, ...]] = []

    def network(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return F.avg_pool2d(x, 4)

    y = encode_tiled(network, torch.randn(2, 3, 40, 100, requires_grad=True), 4, tile=8, overlap=2)
    assert y.shape == (2, 3, 10, 25)
    assert not y.requires_grad
    assert set(seen) == {(2, 3, 32, 32)}
    assert len(seen) == 2 * 4


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "text"),
    [
        ((8, 8), 4, 3, "overlap (=3) must be at least 0 and at most half of tile (=4), which is at least 1."
         " Give another."),
        ((8, 8), 0, 0, "overlap (=0) must be at least 0 and at most half of tile (=0), which is at least 1."
         " Give another."),
        ((8, 9), 4, 2, "the image (=8x9) must be divisible by factor (=2). Pad it, or crop it."),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit(size: tuple[int, int], tile: int, overlap: int, text: str) -> None:
    with pytest.raises(ValueError) as error:
        encode_tiled(lambda x: x, torch.zeros(1, 1, *size), 2, tile=tile, overlap=overlap)
    assert str(error.value) == f"encode_tiled: {text}"
