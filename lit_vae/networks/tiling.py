"""Runs networks on large images tile by tile, with blended seams, to save memory.

For networks with norms or attention the result is close to that of the whole image, but not equal, because the
statistics of a tile differ. An overlap of a quarter of a tile hides the seams.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_vae.images import Shape

Network = Callable[[Tensor], Tensor]


@torch.no_grad()
def encode_tiled(encoder: Network, x: Tensor, factor: int, tile: int = 64, overlap: int = 16) -> Tensor:
    """``encoder(x)`` in tiles, without gradient: ``(B, C, H, W) -> (B, c, H / factor, W / factor)``.

    The memory for features is that of one tile.

    Args:
        encoder: network whose output has ``1 / factor`` of the height and width.
        x: images of any size divisible by ``factor``.
        factor: see ``encoder``.
        tile: height and width of a tile *on the map*; in the image ``factor`` times as much.
        overlap: smallest overlap of two tiles on the map; at most half a tile. In it, one tile fades linearly into the
            other.

    Raises:
        ValueError: the sizes do not fit.
    """
    return _tiled("encode_tiled", encoder, x, tile, overlap, factor, 1)


@torch.no_grad()
def decode_tiled(decoder: Network, z: Tensor, factor: int, tile: int = 64, overlap: int = 16) -> Tensor:
    """``decoder(z)`` in tiles, without gradient: ``(B, c, h, w) -> (B, P, factor h, factor w)``; see `encode_tiled`.

    ``tile`` and ``overlap`` are in units of the latents ``z``, too.
    """
    return _tiled("decode_tiled", decoder, z, tile, overlap, 1, factor)


def _tiled(function: str, network: Network, x: Tensor, tile: int, overlap: int, inward: int, outward: int) -> Tensor:
    """Tile on the map: one position is ``inward`` pixels of the input and ``outward`` pixels of the output."""
    height, width = x.shape[2:]
    if not 0 <= 2 * overlap <= tile or tile < 1:
        raise ValueError(
            f"{function}: overlap (={overlap}) must be at least 0 and at most half of tile (={tile}), which is at least"
            " 1. Give another."
        )
    if height % inward or width % inward:
        raise ValueError(
            f"{function}: the image (={height}x{width}) must be divisible by factor (={inward}). Pad it, or crop it."
        )
    grid = height // inward, width // inward
    result: Tensor | None = None
    for top, bottom, rows in _fading(grid[0], tile, overlap, outward):
        for left, right, columns in _fading(grid[1], tile, overlap, outward):
            y = network(x[:, :, top * inward : bottom * inward, left * inward : right * inward])
            if result is None:
                result = y.new_zeros(*y.shape[:2], grid[0] * outward, grid[1] * outward)
            weight = rows.to(y)[:, None] * columns.to(y)
            result[:, :, top * outward : bottom * outward, left * outward : right * outward] += weight * y
    assert result is not None
    return result


def _fading(length: int, tile: int, overlap: int, scale: int) -> list[tuple[int, int, Tensor]]:
    """Tiles of one axis: start and stop on the map, and weights of their ``scale`` times as many output positions.

    At every position the weights sum to one. They are proportional to the distance to the end of the tile, unless it is
    an end of the image, so that one tile fades linearly into the next.
    """
    intervals = _intervals(length, tile, overlap)
    position = torch.arange(length * scale, dtype=torch.float64) + 0.5
    beyond = torch.full_like(position, 2.0 * length * scale)  # farther away than any end
    distances = []
    for start, stop in intervals:
        to_start = position - start * scale if start > 0 else beyond
        to_stop = stop * scale - position if stop < length else beyond
        distances.append(torch.minimum(to_start, to_stop).clamp(min=0.0))
    total = torch.stack(distances).sum(0)
    return [
        (start, stop, (distance / total)[start * scale : stop * scale])
        for (start, stop), distance in zip(intervals, distances, strict=True)
    ]


def _intervals(length: int, tile: int, overlap: int) -> list[Shape]:
    """The fewest equally spaced tiles that cover an axis: ``(start, stop)`` each."""
    tile = min(tile, length)
    gaps = -(-(length - tile) // max(tile - overlap, 1))
    starts = [round(gap * (length - tile) / max(gaps, 1)) for gap in range(gaps + 1)]
    return [(start, start + tile) for start in starts]
