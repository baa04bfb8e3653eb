"""What an image is in this project: the value convention and what a data set says of itself.

Images are float tensors ``(B, C, H, W)`` in [-1, 1]; eight-bit ``u`` maps to ``u / 127.5 - 1``.
Data modules make them, models consume them, pictures turn them back; all three use the functions below.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
"""Dimensions of one image or latent, without the batch."""

Values = Literal["binary", "uint8", "dequantized"]
"""``binary``: {-1, 1}; ``uint8``: the 256 levels ``u / 127.5 - 1``; ``dequantized``: ``(u + U[0, 1)) / 128 - 1``."""


class Batch(NamedTuple):
    """One batch: images ``x (B, C, H, W)`` in [-1, 1] and labels ``y (B,)`` int64, -1 where there are none."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class ImageSpec:
    """What a data set says of its images before any of them is read.

    ``num_classes`` is 0 for images without labels; ``class_names`` is empty where classes are known by number alone.
    """

    channels: int
    height: int
    width: int
    num_classes: int
    values: Values
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return self.channels, self.height, self.width


def from_uint8(u: Tensor) -> Tensor:
    """Map eight-bit levels to [-1, 1]: ``u / 127.5 - 1``. Any shape; float32 out."""
    return u.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(x: Tensor) -> Tensor:
    """Map [-1, 1] to eight-bit levels: clamped, then *rounded* (truncation would darken by half a level)."""
    return x.detach().float().add(1.0).mul(127.5).clamp(0, 255).round().to(torch.uint8)


def levels(x: Tensor, values: Values) -> Tensor:
    """Eight-bit levels of images ``x`` in [-1, 1] from data of these ``values``, be they real or generated: uint8.

    Of real images these are the very levels they were made of: of dequantised ones ``floor(128 (x + 1))``, the bin that
    the noise was added in. Of generated ones the nearest level, or for a model of dequantised images the bin.
    """
    if values != "dequantized":
        return to_uint8(x)
    return x.detach().float().add(1.0).mul(128.0).clamp(0, 255).floor().to(torch.uint8)


def dequantize(u: Tensor, noise: Tensor) -> Tensor:
    """Map eight-bit levels and uniform noise in [0, 1) to [-1, 1): ``(u + noise) / 128 - 1``.

    The density of the result bounds the probability of ``u`` (Theis et al., "A note on the evaluation of generative
    models", 2016, sec. 3.1): ``-log2 P(u) <= -log2 p(x) + D log2(128)``.
    """
    return (u + noise).div_(128.0).sub_(1.0)
