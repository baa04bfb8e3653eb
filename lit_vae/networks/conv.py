"""Residual convolutional encoder and decoder for images whose size can be halved often enough."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.layers import ResidualBlock, Upsample, group_norm
from lit_vae.ranges import PositiveInt, SmallCount, checked


def check_geometry(network: str, image_shape: Shape, latent_shape: Shape, multipliers: list[int]) -> Shape:
    """Size of the coarsest feature map, ``(h, w)``; raises ValueError with the sizes that fit."""
    if not multipliers:
        raise ValueError(
            f"{network}: multipliers (={multipliers}) must be one for each resolution, e.g. [1, 2, 4]. Set them in the"
            " init_args of the network."
        )
    _, height, width = image_shape
    levels = len(multipliers)
    factor = 2 ** (levels - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"{network}: multipliers (={multipliers}) halve an image {levels - 1} times, but {height}x{width}"
            f" (model.image_shape) is not divisible by {factor}. Take fewer multipliers or another image size."
        )
    coarse = height // factor, width // factor
    if len(latent_shape) == 3 and tuple(latent_shape[1:]) != coarse:
        raise ValueError(
            f"{network}: multipliers (={multipliers}) bring {height}x{width} (model.image_shape) to"
            f" {coarse[0]}x{coarse[1]}, but the latent map is {latent_shape[1]}x{latent_shape[2]}. Take a latent of"
            f" shape [c, {coarse[0]}, {coarse[1]}], a vector [d], or other multipliers."
        )
    return coarse


class ConvEncoder(nn.Module):
    """Image to vector or map: residual blocks at each resolution, with strided convolutions in between.

    ``x (B, C, H, W), cond (B, cond_dim) or None -> (B, *out_shape)``; ``out_shape`` ``(d,)`` or ``(c, h, w)``.

    Args:
        in_shape: set by the model.
        out_shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        width: channels at full resolution.
        multipliers: factors on ``width`` at each resolution, from the finest to the coarsest.
        blocks: residual blocks at each resolution.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 32,
        multipliers: list[PositiveInt] = [1, 2, 4],  # noqa: B006
        blocks: SmallCount = 1,
    ) -> None:
        super().__init__()
        coarse = check_geometry(type(self).__name__, in_shape, out_shape, multipliers)
        self.stem = nn.Conv2d(in_shape[0], width * multipliers[0], 3, padding=1)
        self.body = nn.ModuleList()
        channels = width * multipliers[0]
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.body.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
            for _ in range(blocks):
                self.body.append(ResidualBlock(channels, width * multiplier, cond_dim))
                channels = width * multiplier
        self.norm = group_norm(channels)
        self.head: nn.Module
        if len(out_shape) == 3:
            self.head = nn.Conv2d(channels, out_shape[0], 3, padding=1)
        else:
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels * math.prod(coarse), math.prod(out_shape)))

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        h = self.stem(x)
        for layer in self.body:
            h = layer(h, cond) if isinstance(layer, ResidualBlock) else layer(h)
        return self.head(F.silu(self.norm(h)))


class ConvDecoder(nn.Module):
    """Vector or map to image parameters: the mirror of `ConvEncoder`, with nearest-neighbour upsampling.

    ``z (B, *in_shape), cond (B, cond_dim) or None -> (B, *out_shape)``; ``multipliers`` as in the encoder, from the
    finest resolution to the coarsest.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 32,
        multipliers: list[PositiveInt] = [1, 2, 4],  # noqa: B006
        blocks: SmallCount = 1,
    ) -> None:
        super().__init__()
        coarse = check_geometry(type(self).__name__, out_shape, in_shape, multipliers)
        channels = width * multipliers[-1]
        self.stem: nn.Module
        if len(in_shape) == 3:
            self.stem = nn.Conv2d(in_shape[0], channels, 3, padding=1)
        else:
            linear = nn.Linear(math.prod(in_shape), channels * math.prod(coarse))
            self.stem = nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, (channels, *coarse)))
        self.body = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(blocks):
                self.body.append(ResidualBlock(channels, width * multiplier, cond_dim))
                channels = width * multiplier
            if level > 0:
                self.body.append(Upsample(channels))
        self.norm = group_norm(channels)
        self.head = nn.Conv2d(channels, out_shape[0], 3, padding=1)

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        h = self.stem(z)
        for layer in self.body:
            h = layer(h, cond) if isinstance(layer, ResidualBlock) else layer(h)
        return self.head(F.silu(self.norm(h)))

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last layer."""
        return self.head.weight
