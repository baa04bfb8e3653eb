"""The evidence lower bound and its importance-weighted form, term by term.

Pure functions from tensors to per-image terms ``(B,)`` in **nats**. Nothing here averages over the batch: only the
LightningModule does. Samples of the posterior are the *first* dimension, ``z (L, B, *latent)``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution
from lit_vae.ranks import average_over_ranks


class RateDistortion(NamedTuple):
    """``rate``: KL(q(z|x) || p(z)); ``distortion``: -E_q log p(x|z). Both ``(B,)`` nats per image."""

    rate: Tensor
    distortion: Tensor

    @property
    def elbo(self) -> Tensor:
        """``-(distortion + rate)``, a lower bound of log p(x), ``(B,)`` nats."""
        return -(self.distortion + self.rate)


def rate_distortion(
    x: Tensor, likelihood: Distribution, posterior: DiagonalGaussian, prior: DiagonalGaussian
) -> RateDistortion:
    """Terms of the ELBO (Kingma and Welling 2014, eq. 3 and 10): analytic KL, mean of the L samples' log-likelihood.

    Args:
        x: images ``(B, C, H, W)``.
        likelihood: ``p(x | z)`` of L posterior samples, parameters ``(L, B, ...)``.
        posterior: ``q(z | x)``, ``(B, *latent)``.
        prior: ``p(z)``, ``(B, *latent)``.
    """
    return RateDistortion(rate=posterior.kl(prior), distortion=-likelihood.log_prob(x).mean(0))


def log_weights(
    x: Tensor, z: Tensor, likelihood: Distribution, posterior: DiagonalGaussian, prior: DiagonalGaussian
) -> Tensor:
    """``log p(x, z) - log q(z | x)`` of every sample: ``z (k, B, *latent) -> (k, B)`` nats."""
    return likelihood.log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """``log 1/k sum_k w_k`` of ``log_w (k, B)``: ``-> (B,)`` nats; at k = 1 a sample of the ELBO.

    Burda et al., "Importance Weighted Autoencoders", 2016, eq. 8. In expectation it never decreases in k.
    """
    return torch.logsumexp(log_w, 0) - math.log(log_w.shape[0])


def free_bits(kl_per_dim: Tensor, minimum: float) -> Tensor:
    """Rate that is not pressed below ``minimum`` nats in any latent dimension: ``(B, *latent) -> (B,)``.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, eq. 15: a dimension counts
    ``max(minimum, mean over the batch of its KL)``. The mean over the batch only *decides*; the terms stay per image,
    and their batch mean is the equation. In a distributed run the batch is that of all ranks: a collective, so every
    rank must make the call equally often.
    """
    kl = kl_per_dim.flatten(1)
    mean = average_over_ranks(kl.mean(0))
    return torch.where(mean > minimum, kl, minimum).sum(1)
