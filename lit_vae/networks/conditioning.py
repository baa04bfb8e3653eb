"""Conditions a prior over fine codes on coarse codes."""

from itertools import zip_longest

import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.layers import ResidualBlock, group_norm
from lit_vae.ranges import PositiveInt, SmallCount, checked


def _factors(ratio: int) -> list[int]:
    """Prime factors, ascending; none for 1."""
    factor = 2
    while ratio > 1 and ratio % factor:
        factor += 1
    return [factor, *_factors(ratio // factor)] if ratio > 1 else []


class ConditioningStack(nn.Module):
    """Maps embedded codes of the levels above to the grid of this level.

    ``h (B, in_channels, *in_grid) -> (B, out_channels, *out_grid)``. Residual blocks at the coarse grid, then
    nearest-neighbour upsampling by one prime factor at a time with a convolution after each: the conditioning stack of
    VQ-VAE-2 (Razavi et al. 2019, sec. 3.2 and appendix). It is not causal, because all coarse codes are known before
    the first fine code.

    Args:
        in_channels: set by the model.
        out_channels: set by the model.
        in_grid: set by the model, ``(h, w)``.
        out_grid: set by the model, an integer multiple of ``in_grid`` in each direction.
        width: hidden channels.
        blocks: number of residual blocks.

    Raises:
        ValueError: the ratio of the grids is not an integer.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        in_grid: tuple[int, int],
        out_grid: tuple[int, int],
        width: PositiveInt = 128,
        blocks: SmallCount = 4,
    ) -> None:
        super().__init__()
        if out_grid[0] % in_grid[0] or out_grid[1] % in_grid[1]:
            raise ValueError(
                f"ConditioningStack: out_grid (={out_grid[0]}x{out_grid[1]}) must be a multiple of in_grid"
                f" (={in_grid[0]}x{in_grid[1]}) in each direction. Order the levels from the coarsest to the finest, or"
                " train their codes on other grids."
            )
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, width) for _ in range(blocks)))
        self.up = nn.Sequential()
        factors = [_factors(fine // coarse) for coarse, fine in zip(in_grid, out_grid, strict=True)]
        for factor in zip_longest(*factors, fillvalue=1):
            self.up.append(nn.Upsample(scale_factor=factor, mode="nearest"))
            self.up.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = group_norm(width)
        self.head = nn.Conv2d(width, out_channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        return self.head(F.silu(self.norm(self.up(self.blocks(self.stem(h))))))
