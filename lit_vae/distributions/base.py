"""What every distribution is, and what they share."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from lit_vae.images import Shape

LOG_2PI = math.log(2.0 * math.pi)

LOG_SCALES = (-30.0, 20.0)
"""Log-variances and log-scales are held within these bounds wherever a distribution is made; inside, no bit moves.

Beyond them float32 ends: a KL is infinite from a log-variance of 89 on, and a logistic of log-scale 100 has gradients
that are no numbers. The bounds are those of latent diffusion (CompVis, diffusers): imported autoencoders equal theirs
outside of them, too. A parameter beyond a bound has a gradient of zero; every other gradient stays finite.
"""


def at_least_float32(t: Tensor) -> Tensor:
    """Half precision promoted: networks may run in bfloat16, but three digits are not enough for a sum of nats."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def bounded_log_scale(t: Tensor) -> Tensor:
    """A log-variance or log-scale, in float32 at least and within `LOG_SCALES`."""
    return at_least_float32(t).clamp(*LOG_SCALES)


def sum_event(t: Tensor, event_ndim: int) -> Tensor:
    """The sum over the last ``event_ndim`` dimensions."""
    return t.flatten(-event_ndim).sum(-1)


def standard_normal(shape: Shape, like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws from N(0, 1) in the dtype and on the device of ``like``.

    They are drawn on the generator's device: a CPU generator gives the same noise whatever device the model is on.
    """
    device = like.device if generator is None else generator.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


def uniform_open(shape: Shape, like: Tensor, generator: Generator | None) -> Tensor:
    """Uniform numbers in (0, 1), safe inside a logarithm on both sides."""
    eps = torch.finfo(like.dtype).eps
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device).clamp_(eps, 1 - eps)


class Distribution(ABC):
    """A distribution over one latent or image, in batches.

    ``mean`` has the shape of the parameters, ``(..., *event)``.
    """

    event_ndim: int = 3

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Expected value, ``(..., *event)``."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-probability in nats: ``(..., *event) -> (...)``."""

    @abstractmethod
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw for each element of the batch, ``(..., *event)``, without gradient."""
