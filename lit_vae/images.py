"""Convention for image values, and the description of an image data set.

Images are float tensors ``(B, C, H, W)`` in [-1, 1]; eight-bit ``u`` maps to ``u / 127.5 - 1``. Data modules, models
and pictures all use the functions below.
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
    """One batch: images ``x (B, C, H, W)`` in [-1, 1] and labels ``y (B,)`` int64, -1 without labels."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class ImageSpec:
    """Description of an image data set, known before any image is read.

    ``num_classes`` is 0 for images without labels; ``class_names`` is empty if classes have numbers only.
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
    """Map [-1, 1] to eight-bit levels: clamp, then *round* (truncation would darken by half a level)."""
    return x.detach().float().add(1.0).mul(127.5).clamp(0, 255).round().to(torch.uint8)


def levels(x: Tensor, values: Values) -> Tensor:
    """Eight-bit levels (uint8) of real or generated images ``x`` in [-1, 1], for data with these ``values``.

    For ``dequantized`` values this is the bin ``floor(128 (x + 1))``, otherwise the nearest level. Real images give
    back exactly the levels they were made from.
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
