"""Mixtures of Gaussians over latents."""

import torch
from torch import Tensor

from lit_vae.distributions.continuous import (
    LOG_2PI,
    LatentDistribution,
    NoiseSource,
    at_least_float32,
    bounded_log_scale,
    standard_normal,
    uniform_open,
)


class GaussianMixture(LatentDistribution):
    """``sum_k w_k N(mean_k, diag exp(log_var_k))`` for each of ``batch`` elements, which may share the components.

    Args:
        logits: of the weights, ``(K,)``; or ``(batch, K)``, if each element has components of its own.
        mean: ``(K, *event)`` or ``(batch, K, *event)``.
        log_var: the same; clamped to `LOG_SCALES`.
        batch: number of elements.

    >>> p = GaussianMixture(torch.zeros(2), torch.tensor([[-3.0], [3.0]]), torch.zeros(2, 1), batch=5)
    >>> p.mean.shape, p.log_prob(torch.zeros(7, 5, 1)).shape  # seven latents for each element
    (torch.Size([5, 1]), torch.Size([7, 5]))
    """

    def __init__(self, logits: Tensor, mean: Tensor, log_var: Tensor, batch: int) -> None:
        self.log_weights = at_least_float32(logits).log_softmax(-1)
        self.means = at_least_float32(mean)
        self.log_vars = bounded_log_scale(log_var)
        self.batch = batch
        self.event = mean.shape[logits.ndim :]
        self.event_ndim = len(self.event)

    @property
    def mean(self) -> Tensor:
        """``sum_k w_k mean_k``, ``(batch, *event)``."""
        weights = self.log_weights.exp().unflatten(-1, (-1, *[1] * self.event_ndim))
        return (weights * self.means).sum(self.log_weights.ndim - 1).expand(self.batch, *self.event)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log sum_k w_k N(x; mean_k, exp(log_var_k))``: ``(..., batch, *event) -> (..., batch)`` nats.

        The squares are expanded into matrix products, so that no tensor has a number for each latent, component and
        dimension; in float64, because the products cancel where a component is narrow.
        """
        x, mean, log_var = (t.flatten(-self.event_ndim).double() for t in (x, self.means, self.log_vars))
        precision = torch.exp(-log_var)
        weighted = mean * precision
        constants = (mean * weighted + log_var + LOG_2PI).sum(-1)  # ([batch,] K)
        rows = x.unsqueeze(-2)  # (..., batch, 1, d)
        squares = (rows.square() @ precision.mT - 2.0 * rows @ weighted.mT).squeeze(-2) + constants
        return torch.logsumexp(self.log_weights - 0.5 * squares, -1).to(self.means.dtype)

    @torch.no_grad()
    def sample(self, source: NoiseSource = None, temperature: float = 1.0) -> Tensor:
        """A component by its weight, then ``mean_k + temperature * std_k * eps``: ``(batch, *event)``."""
        u = uniform_open((self.batch, 1), self.means, source)
        cumulated = self.log_weights.exp().cumsum(-1)
        k = (u >= cumulated).sum(-1).clamp(max=cumulated.shape[-1] - 1)  # rounding may leave the sum below 1
        chosen = (k,) if self.log_weights.ndim == 1 else (torch.arange(self.batch, device=k.device), k)
        mean, std = self.means[chosen], torch.exp(0.5 * self.log_vars[chosen])
        return mean + temperature * std * standard_normal(tuple(mean.shape), mean, source)
