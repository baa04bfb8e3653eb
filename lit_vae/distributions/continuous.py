"""Base class of distributions, and densities of latents and images."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from lit_vae.images import Shape
from lit_vae.noise import Draws

LOG_2PI = math.log(2.0 * math.pi)

LOG_SCALES = (-30.0, 20.0)
"""Every distribution clamps its log-variances and log-scales to these bounds.

Without them float32 overflows: a KL is infinite from a log-variance of 89 on, and a logistic of log-scale 100 has NaN
gradients. The bounds are those of latent diffusion (CompVis, diffusers), so imported autoencoders give equal results.
A parameter beyond a bound has a gradient of zero; every other gradient stays finite.
"""


def at_least_float32(t: Tensor) -> Tensor:
    """Promote half precision to float32: the three digits of bfloat16 are not enough for a sum of nats."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def bounded_log_scale(t: Tensor) -> Tensor:
    """A log-variance or log-scale, in at least float32 and clamped to `LOG_SCALES`."""
    return at_least_float32(t).clamp(*LOG_SCALES)


def sum_event(t: Tensor, event_ndim: int) -> Tensor:
    """The sum over the last ``event_ndim`` dimensions."""
    return t.flatten(-event_ndim).sum(-1)


NoiseSource = Generator | Draws | None
"""Where random numbers come from: torch's generator if None. `Draws` gives each image its own."""


def standard_normal(shape: Shape, like: Tensor, source: NoiseSource = None) -> Tensor:
    """Draws from N(0, 1) in the dtype and on the device of ``like``.

    They are drawn on the generator's device: a CPU generator gives the same noise for a model on any device.
    """
    if isinstance(source, Draws):
        return source.next_normal(shape).to(like)
    device = like.device if source is None else source.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=source).to(like.device)


def uniform_open(shape: Shape, like: Tensor, source: NoiseSource) -> Tensor:
    """Uniform numbers ``u`` in (0, 1) with finite ``log u`` and ``log(1 - u)``."""
    eps = torch.finfo(like.dtype).eps
    if isinstance(source, Draws):
        return source.next_uniform(shape).to(like).clamp_(eps, 1 - eps)
    device = like.device if source is None else source.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=source).to(like.device).clamp_(eps, 1 - eps)


def _excess(t: Tensor) -> Tensor:
    """``exp(t) - 1 - t``, accurate near 0, so that a KL is never negative."""
    return torch.expm1(t) - t


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
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw for each element of the batch, ``(..., *event)``, without gradient."""


class LatentDistribution(Distribution):
    """A distribution over latents, which can also be sampled with less or more noise than it has."""

    @abstractmethod
    def sample(self, source: NoiseSource = None, temperature: float = 1.0) -> Tensor:
        """One draw for each element of the batch, without gradient, its noise scaled by ``temperature``."""


class Reparametrised(LatentDistribution):
    """A distribution whose draws are a function of its parameters and of noise, as a posterior needs."""

    @abstractmethod
    def rsample(self, num_samples: int, draws: Draws | None = None, first: int = 0) -> Tensor:
        """Draws with gradients to the parameters, ``(num_samples, B, *event)``.

        Args:
            num_samples: number of draws per element of the batch.
            draws: the noise, its samples ``first, first + 1, ...``; None: noise from the global generator.
            first: number of samples of ``draws`` to skip.
        """


class DiagonalGaussian(Reparametrised):
    """``N(mean, diag exp(log_var))``, for posteriors, priors and images.

    ``log_var`` is clamped to `LOG_SCALES` and may have any shape that broadcasts against ``mean`` (a scalar for one
    shared variance). ``event_ndim`` is the number of trailing dimensions of one latent or image; by default all but the
    first.

    >>> q = DiagonalGaussian(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))  # two dimensions of one image
    >>> q.kl_per_dim()  # to N(0, I), nats
    tensor([[0.0000, 0.5000]])
    >>> q.kl()
    tensor([0.5000])
    >>> q.rsample(5).shape  # five draws
    torch.Size([5, 1, 2])
    """

    def __init__(self, mean: Tensor, log_var: Tensor, event_ndim: int | None = None) -> None:
        self._mean = at_least_float32(mean)
        self.log_var = bounded_log_scale(log_var)
        self.event_ndim = mean.ndim - 1 if event_ndim is None else event_ndim

    @property
    def mean(self) -> Tensor:
        """``(..., *event)``."""
        return self._mean

    @property
    def std(self) -> Tensor:
        """Standard deviation, in the shape of ``log_var``."""
        return torch.exp(0.5 * self.log_var)

    def log_prob(self, x: Tensor) -> Tensor:
        """``-1/2 sum((x - mean)^2 / var + log var + log 2 pi)``: ``(..., *event) -> (...)`` nats."""
        return sum_event(self.log_prob_per_dim(x), self.event_ndim)

    def log_prob_per_dim(self, x: Tensor) -> Tensor:
        """The log-density of each dimension, ``(..., *event)`` nats."""
        squares = (x - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * (squares + self.log_var + LOG_2PI)

    def rsample(self, num_samples: int, draws: Draws | None = None, first: int = 0) -> Tensor:
        """Reparametrised draws ``mean + std * eps``, ``(num_samples, B, *event)``, with gradients to both parameters.

        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, sec. 2.4. If the parameters depend on draws of a
        level above, ``(num_samples, B, *event)``, each gets one draw. See `Reparametrised` for the arguments.
        """
        event = tuple(self.mean.shape[-self.event_ndim :])
        if draws is None:
            eps = standard_normal((num_samples, self.mean.shape[-self.event_ndim - 1], *event), self.mean)
        else:
            eps = draws.normal(num_samples, event, first).to(self.mean)
        return self.mean + self.std * eps

    @torch.no_grad()
    def sample(self, source: NoiseSource = None, temperature: float = 1.0) -> Tensor:
        """``mean + temperature * std * eps`` for each element of the batch, ``(..., *event)``."""
        return self.mean + temperature * self.std * standard_normal(tuple(self.mean.shape), self.mean, source)

    def kl_per_dim(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """``KL(self || other)`` of each dimension, ``(..., *event)`` nats; ``other`` is N(0, I) by default.

        To N(0, I): ``1/2 (mean^2 + var - log var - 1)`` (Kingma and Welling 2014, appendix B).
        """
        if other is None:
            return 0.5 * (self.mean.square() + _excess(self.log_var))
        log_ratio = self.log_var - other.log_var
        squares = (self.mean - other.mean).square() * torch.exp(-other.log_var)
        return 0.5 * (squares + _excess(log_ratio))

    def kl(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """``KL(self || other)`` summed over the event, ``(...)`` nats; ``other`` is N(0, I) by default."""
        return sum_event(self.kl_per_dim(other), self.event_ndim)

    def detach(self) -> "DiagonalGaussian":
        """The same distribution without gradients to its parameters."""
        return DiagonalGaussian(self.mean.detach(), self.log_var.detach(), self.event_ndim)


class Laplace(Distribution):
    """Independent ``Laplace(mean, exp(log_scale))`` for each value of an image; its log-density is an L1 distance.

    ``log_scale`` is clamped to `LOG_SCALES`.

    >>> p = Laplace(torch.zeros(1, 1, 1, 2), torch.zeros(()))
    >>> p.log_prob(torch.zeros(1, 1, 1, 2))  # -2 log 2
    tensor([-1.3863])
    """

    def __init__(self, mean: Tensor, log_scale: Tensor) -> None:
        self._mean = at_least_float32(mean)
        self.log_scale = bounded_log_scale(log_scale)

    @property
    def mean(self) -> Tensor:
        """``(..., C, H, W)``."""
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        """``-sum(|x - mean| / b + log 2b)``: ``(..., C, H, W) -> (...)`` nats."""
        terms = (x - self.mean).abs() * torch.exp(-self.log_scale) + self.log_scale + math.log(2.0)
        return -sum_event(terms, self.event_ndim)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw by the inverse of the cumulative distribution function."""
        u = uniform_open(tuple(self.mean.shape), self.mean, source) - 0.5
        return self.mean - self.log_scale.exp() * u.sign() * torch.log1p(-2.0 * u.abs())
