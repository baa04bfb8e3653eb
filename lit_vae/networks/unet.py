"""The U-Net of diffusion models.

Ho et al., "Denoising Diffusion Probabilistic Models", 2020, appendix B, with the Fourier features of Kingma et al.,
"Variational Diffusion Models", 2021, appendix C. Comments at line ends give shapes of one image: c channels, m times
width.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.blocks import rescale
from lit_vae.networks.clock import ClockEmbedding
from lit_vae.networks.layers import ResidualBlock, Upsample, call, group_norm, norm_groups
from lit_vae.networks.ldm import AttentionBlock
from lit_vae.ranges import BelowOne, PositiveInt, SmallCount, Within, checked

Octave = Annotated[int, Within(ge=0, le=12)]
"""Beyond twelve, float32 has no phase of a pixel's value any more."""


def fourier_features(z: Tensor, octaves: list[int]) -> Tensor:
    """The state with sines and cosines of its values: ``(B, C, H, W) -> (B, (1 + 2 len(octaves)) C, H, W)``.

    Octave n is ``sin(2 pi 2^n s)`` and ``cos(2 pi 2^n s)``, where ``s = 255/256 z`` brings the 256 levels
    ``k/127.5 - 1`` to those of the paper, ``(2k + 1)/256 - 1``. So the sine of octave 6 is the last bit of a level: +1
    for an even one, -1 for an odd one.
    """
    phases = [2.0 * math.pi * 2.0**octave * 255.0 / 256.0 * z for octave in octaves]
    return torch.cat([z, *(wave for phase in phases for wave in (phase.sin(), phase.cos()))], 1)


class _Unit(nn.Module):
    """A residual block, then attention or nothing: ``h, embedding -> h``. It starts as the block's shortcut."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, dropout: float, attends: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(in_channels, out_channels, cond_dim, dropout)
        self.attention: nn.Module = nn.Identity()
        if attends:
            self.attention = AttentionBlock(out_channels, norm_groups(out_channels))
            rescale(self.attention.out, 0.0)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(h, embedding))


class UNet(nn.Module):
    """A denoising network: residual blocks on each grid, down and up again, with skips between equal grids.

    ``z (B, C, H, W), lam (B,), cond (B, cond_dim) or None -> (B, C, H, W)``; ``lam`` is the log signal-to-noise ratio.
    It scales and shifts the features of every block. The output is zero at the start.

    Args:
        shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        patch: squares of this size become one position with more channels, before the first layer. Blocks on a finer
            grid are most of the cost.
        width: channels on the finest grid.
        multipliers: factors on ``width`` on each grid, from the finest to the coarsest.
        blocks: residual blocks on each grid on the way down; there is one more on the way up.
        attention: heights of feature maps with attention after each residual block. The coarsest grid has attention in
            any case.
        fourier: octaves of Fourier features of the state, to see the last bits of levels; see `fourier_features`. VDM
            has [6, 7].
        dropout: rate in residual blocks.
        checkpointing: store only the inputs of blocks for the backward pass: less memory, about a fifth more time.

    Raises:
        ValueError: sizes that do not divide, or heights of attention that no feature map has.
    """

    @checked
    def __init__(
        self,
        shape: Shape,
        cond_dim: int = 0,
        patch: PositiveInt = 1,
        width: PositiveInt = 64,
        multipliers: list[PositiveInt] = [1, 2],  # noqa: B006
        blocks: SmallCount = 2,
        attention: list[PositiveInt] = [],  # noqa: B006
        fourier: list[Octave] = [],  # noqa: B006
        dropout: BelowOne = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        heights = _heights(shape, patch, multipliers, attention)
        self.patch, self.fourier, self.checkpointing = patch, fourier, checkpointing
        self.clock = ClockEmbedding(4 * width, cond_dim)

        def unit(in_channels: int, out_channels: int, attends: bool) -> _Unit:
            return _Unit(in_channels, out_channels, 4 * width, dropout, attends)

        levels = [(width * factor, height in attention) for factor, height in zip(multipliers, heights, strict=True)]
        channels = levels[0][0]
        self.stem = nn.Conv2d(shape[0] * (1 + 2 * len(fourier)) * patch**2, channels, 3, padding=1)
        skipped = [channels]  # channels of the features that wait for the way up
        self.down = nn.ModuleList()
        for level, (out, attends) in enumerate(levels):
            if level > 0:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skipped.append(channels)
            for _ in range(blocks):
                self.down.append(unit(channels, out, attends))
                channels = out
                skipped.append(channels)
        self.middle = nn.ModuleList([unit(channels, channels, True), unit(channels, channels, False)])
        self.up = nn.ModuleList()
        for level, (out, attends) in reversed(list(enumerate(levels))):
            for _ in range(blocks + 1):
                self.up.append(unit(channels + skipped.pop(), out, attends))
                channels = out
            if level > 0:
                self.up.append(Upsample(channels))
        self.norm = group_norm(channels)
        self.head = nn.Conv2d(channels, shape[0] * patch**2, 3, padding=1)
        rescale(self.head, 0.0)

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        embedding = self.clock(lam, cond)  # (4 width,)
        h = self.stem(F.pixel_unshuffle(fourier_features(z, self.fourier), self.patch))  # (m_0, H / patch, W / patch)
        skips = [h]
        for layer in self.down:
            h = self._run(layer, h, embedding)  # (m_l, H / patch / 2^l, W / patch / 2^l)
            skips.append(h)
        for layer in self.middle:
            h = self._run(layer, h, embedding)
        for layer in self.up:
            h = self._run(layer, torch.cat([h, skips.pop()], 1) if isinstance(layer, _Unit) else h, embedding)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)  # (c, H, W)

    def _run(self, layer: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        return call(layer, h, embedding, again=self.checkpointing) if isinstance(layer, _Unit) else layer(h)


def _heights(shape: Shape, patch: int, multipliers: list[int], attention: list[int]) -> list[int]:
    """Heights of feature maps, the finest first; ValueError for sizes that do not fit."""
    if not multipliers:
        raise ValueError(
            f"UNet: multipliers (={multipliers}) must be one for each resolution, e.g. [1, 2]. Set them in the"
            " init_args of the network."
        )
    _, height, width = shape
    factor = patch * 2 ** (len(multipliers) - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"UNet: patch (={patch}) and multipliers (={multipliers}) need states whose height and width are divisible"
            f" by {factor}, but they are {height}x{width}. Take fewer multipliers or another patch in the init_args of"
            " the network, or another image size."
        )
    heights = [height // patch >> level for level in range(len(multipliers))]
    if not set(attention) <= set(heights):
        raise ValueError(
            f"UNet: attention (={attention}) must be of the heights of its feature maps, {heights}. Set attention in"
            " the init_args of the network."
        )
    return heights
