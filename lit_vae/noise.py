"""Noise as a pure function of (seed, time, image, position), the same on every device.

There is no generator state to save. An image gets the same numbers at the same time in a resumed run, with another
batch size and with another number of processes or workers. The function is SplitMix64, one stream per image (Steele,
Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).

On a CPU a small batch costs 5 to 15 times as much as with ``torch.rand`` or ``torch.randn``, because of a fixed cost of
0.1 to 0.2 ms per call, and a large one 1 to 5 times (uniform) or 3 to 8 times (normal).

A new time gives new noise. The time is the epoch for data augmentation, and the batch for posterior samples.
"""

import math
from dataclasses import dataclass, field, replace
from math import prod
from typing import Final

import torch
from torch import Tensor

from lit_vae.images import Shape

FIXED: Final = -1
"""The time of evaluations, and of everything that is drawn once for all."""

# Independent streams, one per purpose.
PIXELS: Final = 0
FLIP: Final = 1
CROP: Final = 2
ORDER: Final = 3
LATENTS: Final = 4
EXAMPLES: Final = 5
OUTPUT: Final = 6
SPREAD: Final = 7
STORED: Final = 8
"""Draws from posteriors on disk: a model that trains on them draws its own noise from ``LATENTS``."""
BATCH: Final = 9
"""Numbers that all images of a batch share."""

_STREAMS: Final = 16
"""Level l of a hierarchy draws from stream ``LATENTS + 16 l``, the k-th draw of an output from ``OUTPUT + 16 k``."""

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def key(*parts: int) -> int:
    """Hash integers to a 64-bit integer. The order of the parts matters."""
    state = 0
    for part in parts:
        state = (state + part + _GAMMA) & _MASK
        for shift, factor in _ROUNDS:
            state = (state ^ (state >> shift)) * factor & _MASK
        state ^= state >> _LAST_SHIFT
    return state


def uniform(ids: Tensor, n: int, *, seed: int, time: int, stream: int) -> Tensor:
    """Draw ``n`` numbers in [0, 1) for each image: ``(B,)`` int64 -> ``(B, n)`` float32, multiples of 2^-24."""
    words = _words(ids, (n + 1) // 2, seed, time, stream).view(torch.int32)[:, :n]  # each 64-bit word makes two numbers
    return words.bitwise_and(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def normal(ids: Tensor, n: int, *, seed: int, time: int, stream: int, first: int = 0) -> Tensor:
    """Draw ``n`` numbers from N(0, 1) for each image, starting at number ``first``: ``(B,)`` -> ``(B, n)`` float32.

    Box and Muller, "A note on the generation of random normal deviates", 1958: two uniform numbers give two normal
    numbers. The uniform numbers have 31 bits, so the tails end at 6.7.
    """
    start = first // 2
    words = _words(ids, (first + n + 1) // 2 - start, seed, time, stream, start).view(torch.int32)
    uniforms = words.bitwise_and_(0x7FFFFFFF).to(torch.float32).add_(0.5).mul_(2.0**-31)  # in (0, 1]
    radius = uniforms[:, ::2].log().mul_(-2.0).sqrt_()
    angle = uniforms[:, 1::2].mul(2.0 * math.pi)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], 2)
    return pairs.flatten(1)[:, first - 2 * start :][:, :n]


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch: ``ids (B,)`` are the numbers of its images, on the batch's device.

    Each random number can be drawn once, because two latents with the same noise would be perfectly correlated. Give
    each latent its own `level`.
    """

    seed: int
    time: int
    ids: Tensor
    latents: int = LATENTS
    given: dict[tuple[int, int], list[range]] = field(default_factory=dict, repr=False, compare=False)

    def level(self, number: int) -> "Draws":
        """Return independent draws for the latent of a level, counted from the top."""
        return replace(self, latents=LATENTS + _STREAMS * number)

    def uniform(self, size: Shape, stream: int = PIXELS) -> Tensor:
        """Draw ``(B, *size)`` numbers in [0, 1).

        Raises:
            ValueError: they were already drawn.
        """
        self._give(stream, range(1))
        noise = uniform(self.ids, prod(size), seed=self.seed, time=self.time, stream=stream)
        return noise.view(len(self.ids), *size)

    def normal(self, num_samples: int, size: Shape, first: int = 0) -> Tensor:
        """Draw from N(0, 1), ``(num_samples, B, *size)``: an image's samples ``first``, ``first + 1``, ...

        Raises:
            ValueError: some were already drawn.
        """
        self._give(self.latents, range(first, first + num_samples))
        n = prod(size)
        noise = normal(self.ids, num_samples * n, seed=self.seed, time=self.time, stream=self.latents, first=first * n)
        return noise.view(len(self.ids), num_samples, *size).transpose(0, 1)

    def next_uniform(self, shape: Shape) -> Tensor:
        """Draw ``(B, ...)`` numbers in [0, 1) for an output, others at each call."""
        noise = uniform(self.ids, prod(shape[1:]), seed=self.seed, time=self.time, stream=self._next_stream())
        return noise.view(shape)

    def next_normal(self, shape: Shape) -> Tensor:
        """Draw ``(B, ...)`` numbers from N(0, 1) for an output, others at each call."""
        noise = normal(self.ids, prod(shape[1:]), seed=self.seed, time=self.time, stream=self._next_stream())
        return noise.view(shape)

    def spread(self) -> Tensor:
        """Draw ``(B,)`` numbers in [0, 1), one per image, spread evenly over all images of the batch.

        They are ``(u + i / golden ratio) mod 1`` for the i-th image: a mean over images varies far less than with
        independent numbers, whatever the number of images and of ranks.

        Raises:
            ValueError: they were already drawn.
        """
        self._give(SPREAD, range(1))
        words = self.ids * _signed(_GAMMA) + _signed(key(self.seed, self.time, SPREAD))  # _GAMMA: 2^64 / golden ratio
        return (words >> 40).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)

    def of_batch(self, n: int) -> list[float]:
        """Draw ``n`` numbers in [0, 1) that are the same for all images of the batch, on all ranks.

        Raises:
            ValueError: they were already drawn.
        """
        self._give(BATCH, range(1))
        return [(key(self.seed, self.time, BATCH, i) >> 11) * 2.0**-53 for i in range(n)]

    def fixed(self) -> "Draws":
        """Return the draws that are the same at any time."""
        return replace(self, time=FIXED)

    def _next_stream(self) -> int:
        taken = self.given.setdefault((self.time, OUTPUT), [])
        taken.append(range(0))
        return OUTPUT + _STREAMS * (len(taken) - 1)

    def _give(self, stream: int, samples: range) -> None:
        given = self.given.setdefault((self.time, stream), [])
        if any(samples.start < other.stop and other.start < samples.stop for other in given):
            raise ValueError(
                f"Draws: samples {samples.start} to {samples.stop - 1} of stream {stream} were drawn before. Two"
                " latents with the same noise are fully correlated: give each its own, draws.level(0), draws.level(1)."
            )
        given.append(samples)


def _words(ids: Tensor, n: int, seed: int, time: int, stream: int, first: int = 0) -> Tensor:
    """``n`` words of each image's stream, from word ``first``: ``(B,)`` int64 -> ``(B, n)`` int64."""
    keys = _mix_(ids * _signed(_GAMMA) + _signed(key(seed, time, stream)))
    positions = torch.arange(first + 1, first + n + 1, device=ids.device) * _signed(_GAMMA)
    return _mix_(keys[:, None] + positions)


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
