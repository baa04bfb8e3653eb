"""Use of the latent by a variational autoencoder: active units, rate of each dimension, mutual information.

For a Gaussian prior ``N(mean_p, std_p^2)``, which may depend on the label of the image, all numbers are for
standardised latents ``u = (z - mean_p) / std_p``. For the standard normal prior ``u`` is ``z``. The prior of ``u`` is
``N(0, I)`` for every class, so one aggregate posterior ``q(u)`` is defined for class-conditional priors, too. The map
does not change a KL divergence. For any other prior ``u`` is ``z``, and the rate is that of one draw of each image.

With ``q(u) = 1/N sum_n q(u | n)`` the aggregate posterior of N images (Hoffman and Johnson, "ELBO surgery", 2016)::

    rate = E_n KL(q(u|n) || p(u)) = I_q + KL(q(u) || p(u)),    I_q = E_n E_q(u|n) [log q(u|n) - log q(u)]

Both expectation and ``q(u)`` use the N given images. So ``I_q`` (up to the noise of one draw per image) is the
information about *which of these N images* was encoded, and is at most ``log N``. As an estimate for the population it
is too low, and ``KL(q(u) || p(u))`` is too high by the same amount. A value near ``log N`` only means that the latents
distinguish all images.
"""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_vae.distributions import LOG_2PI, DiagonalGaussian, LatentDistribution
from lit_vae.noise import Draws
from lit_vae.ranges import AtLeastTwo, checked
from lit_vae.ranks import world_size

ACTIVE_THRESHOLD = 1e-2
CHUNK_ELEMENTS = 2**23
"""Entries of the largest matrix that is held at once: 64 MiB in float64."""

_CANCELLATION = 1e-6  # largest error of an expanded square, in nats
_SEED = 0


class LatentSummary(NamedTuple):
    """Summary for N images and d latent dimensions; divergences and information in nats."""

    kl_per_dim: Tensor | None
    """Mean over the images of ``KL(q(z_j | x) || p(z_j))``, ``(d,)``; its sum is the rate. None for other priors."""

    active_units: Tensor
    """Number of active dimensions, see `active_units`."""

    mutual_information: Tensor
    """``I_q``, at most ``log N``."""

    aggregate_kl: Tensor
    """``KL(q(u) || p(u))``, the rest of the rate."""

    standard_error: Tensor
    """Standard error of ``I_q``, from one draw per image. `aggregate_kl` has the same one if the prior is Gaussian."""

    num_images: int
    """Number N of images."""


def active_units(means: Tensor, threshold: float = ACTIVE_THRESHOLD) -> Tensor:
    """Number of dimensions whose posterior mean varies over the data by more than ``threshold``: ``(N, d) -> ()``.

    Burda et al., "Importance Weighted Autoencoders", 2016, sec. 5.2: ``Var_x(E_q(u|x)[u]) > 1e-2``.

    >>> active_units(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor(1)
    """
    return (means.var(0, correction=0) > threshold).sum()


def log_aggregate_posterior(u: Tensor, means: Tensor, log_vars: Tensor) -> Tensor:
    """``log 1/N sum_n N(u; mean_n, diag var_n)``: ``u (M, d)``, parameters ``(N, d) -> (M,)`` nats, in float64.

    It computes all M N pairs, in chunks of `CHUNK_ELEMENTS`.
    """
    u, means, log_vars = u.double(), means.double(), log_vars.double()
    precision = torch.exp(-log_vars)
    center = means.mean(0)  # smaller squares lose fewer digits
    # Matrix products expand the square, which loses digits for very narrow posteriors. For these, compute the
    # differences directly.
    largest = ((torch.cat([u, means]) - center).square().amax(0) * precision).sum(1)
    narrow = largest * torch.finfo(u.dtype).eps > _CANCELLATION
    wide = ~narrow
    weighted = (means - center)[wide] * precision[wide]
    constant = ((means - center)[wide] * weighted).sum(1)
    log_normalizer = -0.5 * (log_vars + LOG_2PI).sum(1)
    rows = max(1, CHUNK_ELEMENTS // (int(wide.sum()) + int(narrow.sum()) * means.shape[1]))
    chunks = []
    for chunk in u.split(rows):
        squares = chunk.new_empty(len(chunk), len(means))
        offset = chunk - center
        squares[:, wide] = offset.square() @ precision[wide].T - 2.0 * offset @ weighted.T + constant
        squares[:, narrow] = ((chunk.unsqueeze(1) - means[narrow]).square() * precision[narrow]).sum(2)
        chunks.append(torch.logsumexp(log_normalizer - 0.5 * squares, 1))
    return torch.cat(chunks) - math.log(len(means))


def summarize_posteriors(
    means: Tensor, log_vars: Tensor, rates: Tensor | None = None, seed: int = _SEED
) -> LatentSummary:
    """Summary of N posteriors, ``means`` and ``log_vars`` of shape ``(N, d)``.

    Without ``rates (N,)``, one-sample estimates of the images' rates, the prior is N(0, I).

    The images are first sorted by their posteriors, so that the draws do not depend on batches and ranks.
    """
    means, log_vars = means.double(), log_vars.double()
    order = (means @ torch.cos(torch.arange(1.0, means.shape[1] + 1.0)).to(means)).argsort(stable=True)
    means, log_vars = means[order], log_vars[order]
    # not a `DiagonalGaussian`, which would clamp the standardised log-variances
    eps = torch.randn(means.shape, dtype=means.dtype, generator=Generator().manual_seed(seed)).to(means.device)
    u = means + torch.exp(0.5 * log_vars) * eps
    log_posterior = -0.5 * ((u - means).square() * torch.exp(-log_vars) + log_vars + LOG_2PI).sum(1)
    information = log_posterior - log_aggregate_posterior(u, means, log_vars)  # each at most log N
    kl_per_dim = (0.5 * (means.square() + torch.expm1(log_vars) - log_vars)).mean(0)
    rate = kl_per_dim.sum() if rates is None else rates.mean()
    mutual_information = information.mean()
    return LatentSummary(
        kl_per_dim=kl_per_dim if rates is None else None,
        active_units=active_units(means),
        mutual_information=mutual_information,
        aggregate_kl=rate - mutual_information,
        standard_error=information.std() / math.sqrt(len(means)),
        num_images=len(means),
    )


class PosteriorStatistics(Metric):
    """Collects posteriors over batches and ranks, and computes a `LatentSummary`.

    It keeps ``2 d`` float64 numbers per image, and a rate where the prior is no Gaussian. The estimate of ``I_q`` takes
    ``N^2 d`` operations.

    Args:
        max_images: use only this many first images; in a distributed run ``max_images / ranks`` of each rank.
    """

    full_state_update = False
    means: list[Tensor]
    log_vars: list[Tensor]
    rates: list[Tensor]

    @checked
    def __init__(self, max_images: AtLeastTwo = 10_000) -> None:
        super().__init__()
        self.max_images = max_images
        for name in ("means", "log_vars", "rates"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, posterior: DiagonalGaussian, prior: LatentDistribution, draws: Draws | None = None) -> None:
        """Add ``q(z | x)`` and ``p(z)`` or ``p(z | y)`` of a batch, both ``(B, *latent)``.

        ``draws``: noise of the rate where the prior is no Gaussian.
        """
        room = math.ceil(self.max_images / world_size()) - sum(len(means) for means in self.means)
        if room <= 0:
            return
        if isinstance(prior, DiagonalGaussian):
            log_var_p = prior.log_var.double()
            means = (posterior.mean.double() - prior.mean.double()) * torch.exp(-0.5 * log_var_p)
            log_vars = (posterior.log_var.double() - log_var_p).expand_as(means)
        else:
            means, log_vars = posterior.mean.double(), posterior.log_var.double().expand_as(posterior.mean)
            z = posterior.rsample(1, draws)
            rates = posterior.log_prob(z) - prior.log_prob(z)
            self.rates.append(rates[0].detach().double()[:room])
        self.means.append(means.detach().flatten(1)[:room])
        self.log_vars.append(log_vars.detach().flatten(1)[:room])

    def compute(self) -> LatentSummary:
        """The summary over all ranks, equal on each."""
        if not len(self.means):
            raise ValueError("PosteriorStatistics: compute was called before any update. Give it images first.")
        rates = dim_zero_cat(self.rates) if len(self.rates) else None
        return summarize_posteriors(dim_zero_cat(self.means), dim_zero_cat(self.log_vars), rates)
