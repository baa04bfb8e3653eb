"""Distributions over latents and images, as plain tensors with the mathematics written out.

Every ``log_prob`` and ``kl`` is in **nats**, *summed* over the event (all dimensions of one latent or image) and never
reduced over anything else: parameters of shape ``(..., *event)`` and a value that broadcasts against them give
``(...)``. So ``L`` posterior samples of a batch are parameters ``(L, B, C, H, W)`` against ``x (B, C, H, W)``, and the
result is ``(L, B)``; ``x`` is not copied ``L`` times.

Images are in [-1, 1] (`lit_vae.images`). Sampling takes a `torch.Generator` so that drawing a picture need not touch
the random state of training; without one, the global generator is used. A posterior's samples take their noise from
`lit_vae.noise`, which knows of no ranks.
"""

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lit_vae.images import Shape
from lit_vae.noise import Draws

LOG_2PI = math.log(2.0 * math.pi)

LOG_SCALES = (-30.0, 20.0)
"""Log-variances and log-scales are held within these bounds wherever a distribution is made; inside, no bit moves.

Beyond them float32 ends: a KL is infinite from a log-variance of 89 on, and a logistic of log-scale 100 has gradients
that are no numbers. The bounds are those of latent diffusion (CompVis, diffusers): imported autoencoders equal theirs
outside of them, too. A parameter beyond a bound has a gradient of zero; every other gradient stays finite.
"""


def _at_least_float32(t: Tensor) -> Tensor:
    """Half precision promoted: networks may run in bfloat16, but three digits are not enough for a sum of nats."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _log_scale(t: Tensor) -> Tensor:
    """A log-variance or log-scale, in float32 at least and within `LOG_SCALES`."""
    return _at_least_float32(t).clamp(*LOG_SCALES)


def _sum_event(t: Tensor, event_ndim: int) -> Tensor:
    return t.flatten(-event_ndim).sum(-1)


def _excess(t: Tensor) -> Tensor:
    """``exp(t) - 1 - t``, which near 0 keeps digits that ``exp(t)`` has already lost: no rate comes out negative."""
    return torch.expm1(t) - t


def standard_normal(shape: Shape, like: Tensor, generator: Generator | None = None) -> Tensor:
    """Draws from N(0, 1) in the dtype and on the device of ``like``.

    They are drawn on the generator's device: a CPU generator gives the same noise whatever device the model is on.
    """
    device = like.device if generator is None else generator.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


def _rand(shape: Shape, like: Tensor, generator: Generator | None) -> Tensor:
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


class DiagonalGaussian(Distribution):
    """``N(mean, diag exp(log_var))``, for posteriors, priors and images alike.

    ``log_var`` may be any shape that broadcasts against ``mean`` (a scalar for one shared variance). ``event_ndim`` is
    the number of trailing dimensions that make up one latent or image; by default all but the first. It is held within
    `LOG_SCALES`.
    """

    def __init__(self, mean: Tensor, log_var: Tensor, event_ndim: int | None = None) -> None:
        self._mean = _at_least_float32(mean)
        self.log_var = _log_scale(log_var)
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
        squares = (x - self.mean).square() * torch.exp(-self.log_var)
        return -0.5 * _sum_event(squares + self.log_var + LOG_2PI, self.event_ndim)

    def rsample(self, num_samples: int, draws: Draws | None = None, first: int = 0) -> Tensor:
        """Reparametrised draws ``mean + std * eps``, ``(num_samples, B, *event)``, with gradient to both parameters.

        Kingma and Welling, "Auto-Encoding Variational Bayes", 2014, sec. 2.4.

        Args:
            num_samples: for each element of the batch.
            draws: their noise, the samples ``first, first + 1, ...``; None: noise of the global generator.
            first: how many samples of ``draws`` are left out.
        """
        if draws is None:
            eps = standard_normal((num_samples, *self.mean.shape), self.mean)
        else:
            eps = draws.normal(num_samples, tuple(self.mean.shape[1:]), first).to(self.mean)
        return self.mean + self.std * eps

    @torch.no_grad()
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw for each element of the batch, ``(..., *event)``."""
        return self.mean + self.std * standard_normal(tuple(self.mean.shape), self.mean, generator)

    def kl_per_dim(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """``KL(self || other)`` of every single dimension, ``(..., *event)`` nats; ``other`` is N(0, I) by default.

        To N(0, I): ``1/2 (mean^2 + var - log var - 1)`` (Kingma and Welling 2014, appendix B).
        """
        if other is None:
            return 0.5 * (self.mean.square() + _excess(self.log_var))
        log_ratio = self.log_var - other.log_var
        squares = (self.mean - other.mean).square() * torch.exp(-other.log_var)
        return 0.5 * (squares + _excess(log_ratio))

    def kl(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """``KL(self || other)`` summed over the event, ``(...)`` nats; ``other`` is N(0, I) by default."""
        return _sum_event(self.kl_per_dim(other), self.event_ndim)

    def detach(self) -> "DiagonalGaussian":
        """The same distribution with no gradient to its parameters."""
        return DiagonalGaussian(self.mean.detach(), self.log_var.detach(), self.event_ndim)


class Laplace(Distribution):
    """Independent ``Laplace(mean, exp(log_scale))`` for each value of an image; its log-density is an L1 distance.

    ``log_scale`` is held within `LOG_SCALES`.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor) -> None:
        self._mean = _at_least_float32(mean)
        self.log_scale = _log_scale(log_scale)

    @property
    def mean(self) -> Tensor:
        """``(..., C, H, W)``."""
        return self._mean

    def log_prob(self, x: Tensor) -> Tensor:
        """``-sum(|x - mean| / b + log 2b)``: ``(..., C, H, W) -> (...)`` nats."""
        terms = (x - self.mean).abs() * torch.exp(-self.log_scale) + self.log_scale + math.log(2.0)
        return -_sum_event(terms, self.event_ndim)

    @torch.no_grad()
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw by the inverse distribution function."""
        u = _rand(tuple(self.mean.shape), self.mean, generator) - 0.5
        return self.mean - self.log_scale.exp() * u.sign() * torch.log1p(-2.0 * u.abs())


class Bernoulli(Distribution):
    """Independent coins over the values {-1, 1}; ``logits`` are those of the value 1.

    Values in between are taken as soft targets ``t = (x + 1) / 2``: then `log_prob` is a cross-entropy and *not* the
    log-probability of anything.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = _at_least_float32(logits)

    @property
    def mean(self) -> Tensor:
        """``2 p - 1 = tanh(logits / 2)``, ``(..., C, H, W)``."""
        return torch.tanh(0.5 * self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """``sum(t log p + (1 - t) log(1 - p))``, ``t = (x + 1) / 2``: ``(..., C, H, W) -> (...)`` nats."""
        # log(1 - p) = log p - logit. (F.softplus would be linear above 20, an error that float64 shows.)
        return _sum_event(F.logsigmoid(self.logits) - 0.5 * (1.0 - x) * self.logits, self.event_ndim)

    @torch.no_grad()
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw in {-1, 1}."""
        u = _rand(tuple(self.logits.shape), self.logits, generator)
        return torch.where(u < torch.sigmoid(self.logits), 1.0, -1.0).to(self.logits.dtype)


class Categorical(Distribution):
    """Independent softmaxes over the 256 levels of each value: ``logits (..., 256, C, H, W)``.

    van den Oord et al., "Pixel Recurrent Neural Networks", 2016, sec. 3.3.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = _at_least_float32(logits)

    @property
    def mean(self) -> Tensor:
        """``sum_u p(u) (u / 127.5 - 1)``, ``(..., C, H, W)``."""
        levels = torch.linspace(-1.0, 1.0, 256, dtype=self.logits.dtype, device=self.logits.device)
        return (self.logits.softmax(-4) * levels.view(-1, 1, 1, 1)).sum(-4)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of eight-bit images ``x (..., C, H, W)`` in [-1, 1]: ``-> (...)`` nats."""
        levels = ((x + 1.0) * 127.5).round().long().unsqueeze(-4)
        log_p = self.logits.log_softmax(-4)
        levels = levels.expand(*log_p.shape[:-4], 1, *log_p.shape[-3:])
        return _sum_event(log_p.gather(-4, levels).squeeze(-4), self.event_ndim)

    @torch.no_grad()
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw on the 256 levels, by Gumbel-max."""
        gumbel = -torch.log(-torch.log(_rand(tuple(self.logits.shape), self.logits, generator)))
        return (self.logits + gumbel).argmax(-4).to(self.logits.dtype) / 127.5 - 1.0


class DiscretizedLogisticMixture(Distribution):
    """Mixture of ``K`` logistics over the 256 levels of each channel.

    Salimans et al., "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood", 2017,
    sec. 2.1 and 2.2.

    A level ``x = u / 127.5 - 1`` has the mass of the interval ``x -+ 1/255``; the first and the last interval are open.
    All channels of a pixel share the mixture component, and within a component the mean of a channel depends linearly
    on the channels before it (green on red; blue on red and green).

    Args:
        logits: ``(..., K, H, W)``, of the components.
        means: ``(..., K, C, H, W)``.
        log_scales: ``(..., K, C, H, W)``; held within `LOG_SCALES`.
        coefficients: ``(..., K, C (C - 1) / 2, H, W)``, in the order (1, 0), (2, 0), (2, 1), ...
    """

    def __init__(self, logits: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor) -> None:
        self.logits = _at_least_float32(logits)
        self.means = _at_least_float32(means)
        self.log_scales = _log_scale(log_scales)
        self.coefficients = _at_least_float32(coefficients)
        self.channels = means.shape[-3]

    def _shift(self, channel: int, x: Tensor) -> Tensor:
        """What the channels before ``channel`` add to its means: ``x (..., 1 or K, C, H, W) -> (..., K, H, W)``."""
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :, :]
        return (coefficients * x[..., :channel, :, :]).sum(-3)

    @property
    def mean(self) -> Tensor:
        """Expected value, ``(..., C, H, W)``, from the mean of each logistic *clamped* to [-1, 1] by the open end bins.

        Exact for the first channel but for the rounding to levels. A later channel is given the *means* of those
        before it, which is exact as long as no mass lies beyond the ends.
        """
        scales = self.log_scales.exp()
        component_means = torch.zeros_like(self.means[..., :0, :, :])
        for channel in range(self.channels):
            m = self.means[..., channel, :, :] + self._shift(channel, component_means)
            s = scales[..., channel, :, :]
            # E clamp(X, -1, 1) = m + integral of F below -1 - integral of 1 - F above 1
            clamped = m + s * (F.softplus((-1.0 - m) / s) - F.softplus((m - 1.0) / s))
            component_means = torch.cat([component_means, clamped.unsqueeze(-3)], -3)
        weights = self.logits.softmax(-3).unsqueeze(-3)
        return (weights * component_means).sum(-4).clamp(-1.0, 1.0)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of eight-bit images ``x (..., C, H, W)`` in [-1, 1]: ``-> (...)`` nats."""
        x = x.unsqueeze(-4)  # (..., 1, C, H, W) against (..., K, C, H, W)
        means = [self.means[..., c, :, :] + self._shift(c, x) for c in range(self.channels)]
        centered = x - torch.stack(means, -3)
        inv_scale = torch.exp(-self.log_scales)
        upper = inv_scale * (centered + 1.0 / 255.0)
        lower = inv_scale * (centered - 1.0 / 255.0)
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): exact where the difference underflows
        width = inv_scale * (2.0 / 255.0)
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        edge = 1.0 - 0.5 / 255.0
        log_mass = torch.where(x < -edge, F.logsigmoid(upper), torch.where(x > edge, F.logsigmoid(-lower), inner))
        per_component = log_mass.sum(-3) + self.logits.log_softmax(-3)  # (..., K, H, W)
        return _sum_event(per_component.logsumexp(-3), 2)

    @torch.no_grad()
    def sample(self, generator: Generator | None = None) -> Tensor:
        """One draw on the 256 levels, ``(..., C, H, W)``: component by Gumbel-max, channels in their order."""
        gumbel = -torch.log(-torch.log(_rand(tuple(self.logits.shape), self.logits, generator)))
        index = (self.logits + gumbel).argmax(-3, keepdim=True).unsqueeze(-3)  # (..., 1, 1, H, W)
        x = torch.zeros_like(self.means[..., 0, :, :, :])
        for channel in range(self.channels):
            means = self.means[..., channel, :, :] + self._shift(channel, x.unsqueeze(-4))
            picked_mean = means.gather(-3, index[..., 0, :, :]).squeeze(-3)
            picked_log_scale = self.log_scales[..., channel, :, :].gather(-3, index[..., 0, :, :]).squeeze(-3)
            u = _rand(tuple(picked_mean.shape), picked_mean, generator)
            logistic = picked_mean + picked_log_scale.exp() * (torch.log(u) - torch.log1p(-u))
            levels = ((logistic + 1.0) * 127.5).round().clamp(0, 255)
            x[..., channel, :, :] = levels / 127.5 - 1.0
        return x
