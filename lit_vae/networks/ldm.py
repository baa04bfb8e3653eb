"""Encoder and decoder of latent diffusion, equal to the published autoencoders layer by layer.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022, sec. 3.1 and appendix G; the
layers are in Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021, table 7.
`lit_vae.interop` reads and writes their weights. Comments at line ends give shapes of one image: c channels, m times
width.
"""

from collections.abc import Iterable
from itertools import chain, pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.conv import check_geometry
from lit_vae.networks.layers import GroupNorm, Upsample, call, shortcut
from lit_vae.ranges import PositiveInt, SmallCount, checked


class ResnetBlock(nn.Module):
    """Twice norm, SiLU, 3x3 convolution, plus a shortcut: ``(B, in_channels, H, W) -> (B, out_channels, H, W)``."""

    def __init__(self, in_channels: int, out_channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(norm_groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(norm_groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = shortcut(in_channels, out_channels)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        residual = self.conv1(F.silu(self.norm1(h)))
        residual = self.conv2(F.silu(self.norm2(residual)))
        return self.shortcut(h) + residual


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels, plus the identity: ``(B, C, H, W) -> (B, C, H, W)``."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(norm_groups, channels, eps=1e-6)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        """See the class."""
        pixels = self.norm(h).flatten(2).mT.unsqueeze(1)  # (1, H W, c), a view of channels-last features
        mixed = F.scaled_dot_product_attention(self.query(pixels), self.key(pixels), self.value(pixels))
        return h + self.out(mixed).squeeze(1).mT.unflatten(2, h.shape[2:])


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, with zero padding at the right and the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H / 2, W / 2)``."""
        return self.conv(F.pad(h, (0, 1, 0, 1)))


class _Stage(nn.Module):
    """Blocks at one resolution. With ``checkpointing`` the backward pass computes their activations again."""

    def __init__(self, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing

    def _through(self, blocks: Iterable[nn.Module], h: Tensor) -> Tensor:
        for block in blocks:
            h = call(block, h, again=self.checkpointing)
        return h


class _Level(_Stage):
    """Residual blocks, optionally each followed by attention; then a change of resolution, or the identity."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attends: bool,
        norm_groups: int,
        checkpointing: bool,
        resample: nn.Module,
    ) -> None:
        super().__init__(checkpointing)
        channels = [in_channels, *[out_channels] * blocks]
        self.blocks = nn.ModuleList(ResnetBlock(a, b, norm_groups) for a, b in pairwise(channels))
        self.attention = nn.ModuleList(AttentionBlock(out_channels, norm_groups) for _ in range(blocks * attends))
        self.resample = resample

    def forward(self, h: Tensor) -> Tensor:
        both = chain.from_iterable(zip(self.blocks, self.attention, strict=True)) if self.attention else self.blocks
        return self.resample(self._through(both, h))


class _Middle(_Stage):
    """Residual block, attention, residual block, at the coarsest resolution."""

    def __init__(self, channels: int, norm_groups: int, checkpointing: bool) -> None:
        super().__init__(checkpointing)
        self.block1 = ResnetBlock(channels, channels, norm_groups)
        self.attention = AttentionBlock(channels, norm_groups)
        self.block2 = ResnetBlock(channels, channels, norm_groups)

    def forward(self, h: Tensor) -> Tensor:
        return self._through((self.block1, self.attention, self.block2), h)


def _check(
    network: str,
    image_shape: Shape,
    latent_shape: Shape,
    cond_dim: int,
    width: int,
    multipliers: list[int],
    blocks: int,
    attention: list[int],
    norm_groups: int,
) -> list[tuple[int, bool]]:
    """Channels of each level, the finest first, and whether it has attention; ValueError for wrong settings."""
    if cond_dim:
        raise ValueError(
            f"{network}: cond_dim (={cond_dim}) must be 0: it takes no labels. Take"
            f" lit_vae.networks.Conv{network.removeprefix('LDM')} for a model with labels."
        )
    if len(latent_shape) != 3:
        raise ValueError(
            f"{network}: the latent (={list(latent_shape)}) must be a map, [channels, height, width]. Set the shape of"
            " the model's latent."
        )
    check_geometry(network, image_shape, latent_shape, multipliers)
    heights = [image_shape[1] >> level for level in range(len(multipliers))]
    if not set(attention) <= set(heights):
        raise ValueError(
            f"{network}: attention (={attention}) must be of the heights of its feature maps, {heights}. Set attention"
            " in the init_args of the network."
        )
    channels = [width * multiplier for multiplier in multipliers]
    if any(c % norm_groups for c in channels):
        raise ValueError(
            f"{network}: norm_groups (={norm_groups}) must divide all numbers of channels, width times multipliers"
            f" (={channels}). Set width or norm_groups in the init_args of the network."
        )
    return [(c, height in attention) for c, height in zip(channels, heights, strict=True)]


class LDMEncoder(nn.Module):
    """Image to map: residual blocks at each resolution, downsampling in between, attention at the coarsest.

    ``x (B, C, H, W) -> (B, *out_shape)``; ``out_shape`` ``(c, h, w)``.

    Args:
        in_shape: set by the model.
        out_shape: set by the model; a map.
        cond_dim: set by the model; must be 0.
        width: channels at full resolution.
        multipliers: factors on ``width`` at each resolution, from the finest to the coarsest.
        blocks: residual blocks at each resolution.
        attention: heights of feature maps with attention after each residual block. Its cost grows with the square of
            the number of pixels.
        norm_groups: groups of every GroupNorm; must divide all numbers of channels.
        checkpointing: store only the inputs of blocks for the backward pass: less memory, about a quarter more time.

    Raises:
        ValueError: shapes or numbers do not fit.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 128,
        multipliers: list[PositiveInt] = [1, 2, 4, 4],  # noqa: B006
        blocks: SmallCount = 2,
        attention: list[PositiveInt] = [],  # noqa: B006
        norm_groups: PositiveInt = 32,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        levels = _check(
            type(self).__name__, in_shape, out_shape, cond_dim, width, multipliers, blocks, attention, norm_groups
        )
        channels = levels[0][0]
        self.stem = nn.Conv2d(in_shape[0], channels, 3, padding=1)
        self.levels = nn.ModuleList()
        for level, (out, attends) in enumerate(levels, 1):
            down = Downsample(out) if level < len(levels) else nn.Identity()
            self.levels.append(_Level(channels, out, blocks, attends, norm_groups, checkpointing, down))
            channels = out
        self.middle = _Middle(channels, norm_groups, checkpointing)
        self.norm = GroupNorm(norm_groups, channels, eps=1e-6)
        self.head = nn.Conv2d(channels, out_shape[0], 3, padding=1)
        self.quant = nn.Conv2d(out_shape[0], out_shape[0], 1)

    def forward(self, x: Tensor, cond: None = None) -> Tensor:
        """See the class."""
        h = self.stem(x)  # (m_0, H, W)
        for level in self.levels:
            h = level(h)  # (m_l, H / 2^l, W / 2^l), then halved except after the last
        h = self.middle(h)  # (m, h, w)
        return self.quant(self.head(F.silu(self.norm(h))))  # (c, h, w)


class LDMDecoder(nn.Module):
    """Map to image parameters: the mirror of `LDMEncoder`, with one more residual block at each resolution.

    ``z (B, *in_shape) -> (B, *out_shape)``. It takes the same arguments as the encoder, including the order of
    ``multipliers`` and the number of ``blocks``.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 128,
        multipliers: list[PositiveInt] = [1, 2, 4, 4],  # noqa: B006
        blocks: SmallCount = 2,
        attention: list[PositiveInt] = [],  # noqa: B006
        norm_groups: PositiveInt = 32,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        levels = _check(
            type(self).__name__, out_shape, in_shape, cond_dim, width, multipliers, blocks, attention, norm_groups
        )
        channels = levels[-1][0]
        self.post_quant = nn.Conv2d(in_shape[0], in_shape[0], 1)
        self.stem = nn.Conv2d(in_shape[0], channels, 3, padding=1)
        self.middle = _Middle(channels, norm_groups, checkpointing)
        self.levels = nn.ModuleList()  # the coarsest first
        for level, (out, attends) in enumerate(reversed(levels), 1):
            up = Upsample(out) if level < len(levels) else nn.Identity()
            self.levels.append(_Level(channels, out, blocks + 1, attends, norm_groups, checkpointing, up))
            channels = out
        self.norm = GroupNorm(norm_groups, channels, eps=1e-6)
        self.head = nn.Conv2d(channels, out_shape[0], 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last convolution."""
        return self.get_parameter("head.weight")

    def forward(self, z: Tensor, cond: None = None) -> Tensor:
        """See the class."""
        h = self.stem(self.post_quant(z))  # (m, h, w)
        h = self.middle(h)  # (m, h, w)
        for level in self.levels:
            h = level(h)  # (m_l, H / 2^l, W / 2^l), then doubled except after the last
        return self.head(F.silu(self.norm(h)))  # (P, H, W), P parameters of the likelihood
