"""Uniform noise as a pure function of (seed, epoch, image, position), the same on every device.

There is no generator whose state would have to be saved: a resumed run, another batch size, another number of processes
or of workers see the same numbers for the same image in the same epoch. The function is SplitMix64, one stream an
image (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014); it costs about half of
``torch.rand`` on a CPU.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Final

import torch
from torch import Tensor

from lit_vae.images import Shape

FIXED: Final = -1
"""The epoch of evaluation, and of everything that is drawn once for all."""

# What a number is drawn for: independent streams.
PIXELS: Final = 0
FLIP: Final = 1
CROP: Final = 2
ORDER: Final = 3

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def key(*parts: int) -> int:
    """Hash integers into one of 64 bits; the order of the parts matters."""
    state = 0
    for part in parts:
        state = (state + part + _GAMMA) & _MASK
        for shift, factor in _ROUNDS:
            state = (state ^ (state >> shift)) * factor & _MASK
        state ^= state >> _LAST_SHIFT
    return state


def uniform(ids: Tensor, n: int, *, seed: int, epoch: int, stream: int) -> Tensor:
    """Draw ``n`` numbers in [0, 1) for each image: ``(B,)`` int64 -> ``(B, n)`` float32, multiples of 2^-24."""
    keys = _mix_(ids * _signed(_GAMMA) + _signed(key(seed, epoch, stream)))
    positions = torch.arange(1, (n + 1) // 2 + 1, device=ids.device) * _signed(_GAMMA)
    words = _mix_(keys[:, None] + positions).view(torch.int32)[:, :n]  # each 64-bit word makes two numbers
    return words.bitwise_and(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch: ``ids (B,)`` names its images within the data set, on the batch's device."""

    seed: int
    epoch: int
    ids: Tensor

    def uniform(self, size: Shape, stream: int = PIXELS) -> Tensor:
        """Draw ``(B, *size)`` numbers in [0, 1)."""
        noise = uniform(self.ids, prod(size), seed=self.seed, epoch=self.epoch, stream=stream)
        return noise.view(len(self.ids), *size)

    def fixed(self) -> "Draws":
        """Return the draws that are the same in every epoch."""
        return replace(self, epoch=FIXED)


def _signed(word: int) -> int:
    """Reinterpret an unsigned 64-bit word as torch's int64."""
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


def _mix_(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place. int64 products wrap; ``>>`` keeps the sign, hence the masks."""
    shifted = torch.empty_like(x)
    for shift, factor in _ROUNDS:
        torch.bitwise_right_shift(x, shift, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_((1 << (64 - shift)) - 1)).mul_(_signed(factor))
    torch.bitwise_right_shift(x, _LAST_SHIFT, out=shifted)
    return x.bitwise_xor_(shifted.bitwise_and_((1 << (64 - _LAST_SHIFT)) - 1))
