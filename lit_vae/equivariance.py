"""Transformations of images and of their latents: Kouzelis et al., "EQ-VAE", 2025."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.noise import Draws
from lit_vae.ranges import PositiveShare, checked


class Transformation(NamedTuple):
    """Tau: quarter turns, and the size of the latent map."""

    turns: int
    size: tuple[int, int]

    def __call__(self, maps: Tensor, stride: int = 1) -> Tensor:
        """Transform latents ``(B, c, h, w)``, or images of ``stride`` times their height and width."""
        size = self.size[0] * stride, self.size[1] * stride
        if maps.shape[-2:] != size:  # averages, so that no frequency is folded into another
            maps = F.interpolate(maps, size, mode="bilinear", antialias=True)
        return torch.rot90(maps, self.turns, (-2, -1)) if self.turns else maps


class Equivariance:
    """Quarter turns and smaller sizes, of images and of their latents: tau of eq. 5.

    All images of a batch are transformed alike, so that they remain a batch. Four turns and every height of the latent
    map from ``min_scale`` on are equally likely.

    Args:
        share: of the batches that are transformed.
        min_scale: smallest height of a latent map, relative to that of the model.
    """

    @checked
    def __init__(self, share: PositiveShare = 0.5, min_scale: PositiveShare = 0.25) -> None:
        self.share, self.min_scale = share, min_scale

    def draw(self, draws: Draws | None, height: int, width: int) -> Transformation:
        """A transformation for a batch whose latent maps are ``height x width``."""
        chosen, turn, scale = draws.of_batch(3) if draws is not None else torch.rand(3).tolist()
        if chosen >= self.share:
            return Transformation(0, (height, width))
        least = self.least(height)
        return Transformation(int(4 * turn), _scaled(least + int(scale * (height - least + 1)), height, width))

    def smallest(self, height: int, width: int) -> Transformation:
        """The one that leaves the least."""
        return Transformation(0, _scaled(self.least(height), height, width))

    def least(self, height: int) -> int:
        """The least height of a latent map."""
        return max(round(self.min_scale * height), 1)


def _scaled(new: int, height: int, width: int) -> tuple[int, int]:
    return new, max(round(width * new / height), 1)
