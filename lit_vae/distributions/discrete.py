"""Discrete distributions of pixel values: two values, or the 256 levels of eight-bit images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.distributions.continuous import (
    Distribution,
    NoiseSource,
    at_least_float32,
    bounded_log_scale,
    sum_event,
    uniform_open,
)


class Bernoulli(Distribution):
    """Independent Bernoulli variables with values {-1, 1}; ``logits`` are those of the value 1.

    Values in between are soft targets ``t = (x + 1) / 2``: `log_prob` is then a cross-entropy, *not* a log-probability.

    >>> p = Bernoulli(torch.zeros(1, 1, 2, 2))  # four fair coins
    >>> p.log_prob(torch.ones(1, 1, 2, 2))  # -4 log 2
    tensor([-2.7726])
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = at_least_float32(logits)

    @property
    def mean(self) -> Tensor:
        """``2 p - 1 = tanh(logits / 2)``, ``(..., C, H, W)``."""
        return torch.tanh(0.5 * self.logits)

    def log_prob(self, x: Tensor) -> Tensor:
        """``sum(t log p + (1 - t) log(1 - p))``, ``t = (x + 1) / 2``: ``(..., C, H, W) -> (...)`` nats."""
        # log(1 - p) = log p - logit. (F.softplus is linear above 20, too coarse for float64.)
        return sum_event(F.logsigmoid(self.logits) - 0.5 * (1.0 - x) * self.logits, self.event_ndim)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw in {-1, 1}."""
        u = uniform_open(tuple(self.logits.shape), self.logits, source)
        return torch.where(u < torch.sigmoid(self.logits), 1.0, -1.0).to(self.logits.dtype)


class Categorical(Distribution):
    """Independent softmaxes over the 256 levels of each value: ``logits (..., 256, C, H, W)``.

    van den Oord et al., "Pixel Recurrent Neural Networks", 2016, sec. 3.3.

    >>> p = Categorical(torch.zeros(1, 256, 1, 1, 1))  # one pixel, all levels alike: log 256 nats
    >>> p.log_prob(torch.ones(1, 1, 1, 1))
    tensor([-5.5452])
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = at_least_float32(logits)

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
        return sum_event(log_p.gather(-4, levels).squeeze(-4), self.event_ndim)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw on the 256 levels, by Gumbel-max."""
        gumbel = -torch.log(-torch.log(uniform_open(tuple(self.logits.shape), self.logits, source)))
        return (self.logits + gumbel).argmax(-4).to(self.logits.dtype) / 127.5 - 1.0


class GaussianLevels(Distribution):
    """Independent Gaussians, each restricted to the levels of a pixel: ``p(u) ~ N(x_u; mean, var)``.

    What an image with a little noise says of the image (Kingma et al., "Variational Diffusion Models", 2021, eq. 9).

    Args:
        mean: ``(..., C, H, W)``.
        log_var: logarithm of the variance, broadcasts against ``mean``; clamped to `LOG_SCALES`.
        num_levels: number of levels, equally spaced from -1 to 1: 2 or 256.
    """

    def __init__(self, mean: Tensor, log_var: Tensor, num_levels: int) -> None:
        self.centre = at_least_float32(mean)
        self.precision = bounded_log_scale(log_var).neg().exp()
        self.num_levels = num_levels

    def _levels(self) -> Tensor:
        return torch.linspace(-1.0, 1.0, self.num_levels, dtype=self.centre.dtype, device=self.centre.device)

    def _logits(self) -> Tensor:
        """``(..., C, H, W, levels)``."""
        precision = self.precision[..., None]
        return -0.5 * precision * (self.centre[..., None] - self._levels()) ** 2

    @property
    def mean(self) -> Tensor:
        """``sum_u p(u) x_u``, ``(..., C, H, W)``."""
        return self._logits().softmax(-1) @ self._levels()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of images ``x (..., C, H, W)`` on the levels: ``-> (...)`` nats."""
        of_x = -0.5 * self.precision * (self.centre - x) ** 2
        return sum_event(of_x - self._logits().logsumexp(-1), self.event_ndim)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw on the levels, by Gumbel-max."""
        logits = self._logits()
        gumbel = -torch.log(-torch.log(uniform_open(tuple(logits.shape), logits, source)))
        return self._levels()[(logits + gumbel).argmax(-1)]


class DiscretizedLogisticMixture(Distribution):
    """Mixture of ``K`` logistics over the 256 levels of each channel.

    Salimans et al., "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood", 2017,
    sec. 2.1 and 2.2.

    A level ``x = u / 127.5 - 1`` has the mass of the interval ``x -+ 1/255``; the first and the last interval are open.
    All channels of a pixel share the mixture component. Within a component, the mean of a channel depends linearly on
    the channels before it (green on red; blue on red and green).

    Args:
        logits: ``(..., K, H, W)``, of the components.
        means: ``(..., K, C, H, W)``.
        log_scales: ``(..., K, C, H, W)``; clamped to `LOG_SCALES`.
        coefficients: ``(..., K, C (C - 1) / 2, H, W)``, in the order (1, 0), (2, 0), (2, 1), ...
    """

    def __init__(self, logits: Tensor, means: Tensor, log_scales: Tensor, coefficients: Tensor) -> None:
        self.logits = at_least_float32(logits)
        self.means = at_least_float32(means)
        self.log_scales = bounded_log_scale(log_scales)
        self.coefficients = at_least_float32(coefficients)
        self.channels = means.shape[-3]

    def _shift(self, channel: int, x: Tensor) -> Tensor:
        """Shift of a channel's means by the channels before it: ``x (..., 1 or K, C, H, W) -> (..., K, H, W)``."""
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :, :]
        return (coefficients * x[..., :channel, :, :]).sum(-3)

    @property
    def mean(self) -> Tensor:
        """Expected value, ``(..., C, H, W)``, from the mean of each logistic *clamped* to [-1, 1] by the open end bins.

        For the first channel it is exact up to the rounding to levels. A later channel uses the *means* of the channels
        before it, which is exact if no mass lies beyond the ends.
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
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): accurate where the difference underflows
        width = inv_scale * (2.0 / 255.0)
        inner = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        edge = 1.0 - 0.5 / 255.0
        log_mass = torch.where(x < -edge, F.logsigmoid(upper), torch.where(x > edge, F.logsigmoid(-lower), inner))
        per_component = log_mass.sum(-3) + self.logits.log_softmax(-3)  # (..., K, H, W)
        return sum_event(per_component.logsumexp(-3), 2)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw on the 256 levels, ``(..., C, H, W)``: components by Gumbel-max, then channel by channel."""
        gumbel = -torch.log(-torch.log(uniform_open(tuple(self.logits.shape), self.logits, source)))
        index = (self.logits + gumbel).argmax(-3, keepdim=True).unsqueeze(-3)  # (..., 1, 1, H, W)
        x = torch.zeros_like(self.means[..., 0, :, :, :])
        for channel in range(self.channels):
            means = self.means[..., channel, :, :] + self._shift(channel, x.unsqueeze(-4))
            picked_mean = means.gather(-3, index[..., 0, :, :]).squeeze(-3)
            picked_log_scale = self.log_scales[..., channel, :, :].gather(-3, index[..., 0, :, :]).squeeze(-3)
            u = uniform_open(tuple(picked_mean.shape), picked_mean, source)
            logistic = picked_mean + picked_log_scale.exp() * (torch.log(u) - torch.log1p(-u))
            levels = ((logistic + 1.0) * 127.5).round().clamp(0, 255)
            x[..., channel, :, :] = levels / 127.5 - 1.0
        return x
