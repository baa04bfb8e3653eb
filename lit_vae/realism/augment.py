"""Augmentations of the images that a discriminator sees, real and fake: Zhao et al., "DiffAugment", 2020.

All are differentiable, so the generator learns through them and its own images stay unaugmented.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_vae.ranges import PositiveShare, checked


class Augmentation(ABC):
    """A random change, drawn for each image: ``(B, C, H, W) -> (B, C, H, W)``."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Change images in [-1, 1]."""


class Color(Augmentation):
    """Brightness, saturation and contrast: ``+ U(-1/2, 1/2)``, ``x U(0, 2)``, ``x U(1/2, 3/2)``.

    Brightness is in the units of images in [-1, 1], as in the published code.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Saturation scales distances to the mean of the pixel, contrast to the mean of the image."""
        brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
        x = x + (brightness - 0.5)
        grey = x.mean(1, keepdim=True)
        x = grey + (x - grey) * (2.0 * saturation)
        mean = x.mean((1, 2, 3), keepdim=True)
        return mean + (x - mean) * (contrast + 0.5)


class Translation(Augmentation):
    """A shift by up to ``ratio`` of each side. Uncovered pixels become grey, 0."""

    @checked
    def __init__(self, ratio: PositiveShare = 0.125) -> None:
        self.ratio = ratio

    def __call__(self, x: Tensor) -> Tensor:
        """Shift by whole pixels."""
        batch, _, height, width = x.shape
        rows, columns = (_shifts(batch, size, int(size * self.ratio + 0.5), x) for size in (height, width))
        inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None]
        image = torch.arange(batch, device=x.device)[:, None, None]
        row, column = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]
        shifted = x.permute(0, 2, 3, 1)[image, row, column].permute(0, 3, 1, 2)
        return torch.where(inside, shifted, 0.0)


class Cutout(Augmentation):
    """A rectangle of ``ratio`` of each side becomes grey, 0. Its middle is uniform over the image.

    The middle of an even side lies between two pixels or on the border: it has ``size + 1`` places. The middle of an
    odd side lies on a pixel. So both ends of a row or column are cut equally often.
    """

    @checked
    def __init__(self, ratio: PositiveShare = 0.5) -> None:
        self.ratio = ratio

    def __call__(self, x: Tensor) -> Tensor:
        """The rectangle may cross the border."""
        batch, _, height, width = x.shape
        hits = []
        for size in (height, width):
            side = int(size * self.ratio + 0.5)
            middle = torch.randint(0, size + 1 - side % 2, (batch, 1), device=x.device)
            start = middle - side // 2
            at = torch.arange(size, device=x.device)
            hits.append((at >= start) & (at < start + side))
        return torch.where(hits[0][:, None, :, None] & hits[1][:, None, None, :], 0.0, x)


def _shifts(batch: int, size: int, most: int, like: Tensor) -> Tensor:
    """Positions ``(batch, size)`` at which each image is read."""
    shift = torch.randint(-most, most + 1, (batch, 1), device=like.device)
    return torch.arange(size, device=like.device) + shift
