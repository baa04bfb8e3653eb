"""From eight-bit images to the input of a model: callables ``(u, draws) -> x`` that a data module composes."""

from typing import ClassVar, Final, Literal, Protocol

import torch
from torch import Tensor

from lit_vae.images import Values, dequantize, from_uint8
from lit_vae.noise import FLIP, Draws


class Preprocess(Protocol):
    """Maps ``u (B, C, H, W)`` uint8 to ``x (B, C, H, W)`` float32 in [-1, 1]; noise comes from ``draws`` alone."""

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""


class ValuePreprocess(Preprocess, Protocol):
    """A preprocessing with a known kind of values."""

    values: ClassVar[Values]


class Levels:
    """The 256 levels: ``u / 127.5 - 1``."""

    values: ClassVar[Values] = "uint8"

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""
        return from_uint8(u)


class Dequantize:
    """Uniform dequantisation ``(u + U[0, 1)) / 128 - 1``: new noise in each epoch of training, fixed in evaluation.

    The noise has 16 bits, so that ``u + noise`` is exact in float32: ``x < 1`` and ``floor(128 (x + 1)) == u`` hold.
    """

    values: ClassVar[Values] = "dequantized"

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""
        noise = draws.uniform(u.shape[1:]).mul_(2.0**16).floor_().mul_(2.0**-16)
        return dequantize(u, noise)


class DynamicBinarization:
    """A pixel is 1 with probability ``u / 255``: drawn again in each epoch of training, fixed in evaluation."""

    values: ClassVar[Values] = "binary"

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``; levels 0 and 255 are never flipped."""
        return _signs(u > draws.uniform(u.shape[1:]).mul_(255.0))


class StaticBinarization(DynamicBinarization):
    """A pixel is 1 with probability ``u / 255``, drawn once for each image.

    The draw depends on ``seed`` and differs from the files of Larochelle and Murray (2011). Validation and test images
    equal those of dynamic binarisation with the same seed.
    """

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""
        return super().__call__(u, draws.fixed())


class Threshold:
    """A pixel is 1 where ``u >= 128``."""

    values: ClassVar[Values] = "binary"

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""
        return _signs(u >= 128)


class RandomFlip:
    """Mirrors an image with probability 1/2, left to right, before ``then``."""

    def __init__(self, then: Preprocess) -> None:
        self.then = then

    def __call__(self, u: Tensor, draws: Draws) -> Tensor:
        """Map ``u`` to ``x``."""
        mirrored = draws.uniform((1, 1, 1), FLIP) < 0.5
        return self.then(torch.where(mirrored, u.flip(-1), u), draws)


Binarization = Literal["dynamic", "static", "threshold"]

BINARIZATIONS: Final[dict[str, ValuePreprocess]] = {
    "dynamic": DynamicBinarization(),
    "static": StaticBinarization(),
    "threshold": Threshold(),
    "larochelle": Threshold(),  # the files contain 0 and 1
}


def pixel_preprocess(dequantize: bool = False, binarization: str | None = None) -> ValuePreprocess:
    """Return the preprocessing for two arguments of a data module, of which at most one is set."""
    if binarization is not None:
        return BINARIZATIONS[binarization]
    return Dequantize() if dequantize else Levels()


def _signs(bits: Tensor) -> Tensor:
    """Map ``{False, True}`` to ``{-1, 1}``."""
    return bits.to(torch.float32).mul_(2.0).sub_(1.0)
