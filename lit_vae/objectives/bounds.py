"""Bounds of log p(x) over one latent or a hierarchy of them: ELBO, importance weighting, free bits.

All terms are per image, ``(B,)`` in nats. Nothing here averages over the batch: only the LightningModule does. Samples
of the posterior are the first dimension of a latent, ``z (L, B, *latent)``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution
from lit_vae.images import Shape
from lit_vae.objectives.step import Step
from lit_vae.ranges import NotNegativeFloat, PositiveFloat, PositiveInt, checked
from lit_vae.ranks import average_over_ranks
from lit_vae.schedules import Schedule

KL_PER_DIM = "kl_per_dim"


class Level(NamedTuple):
    """One latent of a hierarchy: ``q(z_l | x, z_<l)``, ``p(z_l | z_<l)`` and L draws of q, ``z (L, B, *latent)``.

    The parameters of both are ``(B, *latent)``, or ``(L, B, *latent)`` where they depend on the levels above.
    """

    posterior: DiagonalGaussian
    prior: DiagonalGaussian
    z: Tensor

    def kl_per_dim(self) -> Tensor:
        """``KL(q || p)`` of each dimension, ``(B, *latent)`` nats: in closed form, a mean over L samples above it."""
        kl = self.posterior.kl_per_dim(self.prior)
        return kl if kl.ndim < self.z.ndim else kl.mean(0)

    def rate(self) -> Tensor:
        """``KL(q || p)``, ``(B,)`` nats."""
        return self.kl_per_dim().flatten(1).sum(1)


def term_names(num_levels: int) -> tuple[str, ...]:
    """Names of the terms of an objective over so many levels; a hierarchy has a rate for each beside their sum."""
    return ("loss", "elbo", "rate", "distortion", *(f"rate_{i}" for i in range(num_levels) if num_levels > 1))


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """``log 1/k sum_k w_k`` of ``log_w (k, B)``: ``-> (B,)`` nats; at k = 1 a sample of the ELBO.

    Burda et al., "Importance Weighted Autoencoders", 2016, eq. 8. In expectation it never decreases in k.
    """
    return torch.logsumexp(log_w, 0) - math.log(log_w.shape[0])


def log_weights(log_likelihood: Tensor, levels: Sequence[Level]) -> Tensor:
    """``log p(x, z) - log q(z | x)`` of each draw of the path z, from ``log p(x | z) (L, B)``: ``-> (L, B)`` nats."""
    log_w = log_likelihood
    for level in levels:
        log_w = log_w + level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
    return log_w


class FreeBits:
    """Each latent dimension may cost ``nats`` for nothing, on average over the batch.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, eq. 15: a dimension counts
    ``max(nats, mean over the batch of its KL)``. The mean over the batch only *decides*; the terms stay per image, and
    their batch mean is the equation. In a distributed run the batch is that of all ranks.

    Args:
        nats: of each dimension.
    """

    @checked
    def __init__(self, nats: PositiveFloat) -> None:
        self.nats = nats

    def groups(self, kl_per_dim: Tensor) -> Tensor:
        """What is compared with ``nats``: ``(B, *latent) -> (B, n)``, here each dimension."""
        return kl_per_dim.flatten(1)

    def paid(self, kl_per_dim: Tensor) -> Tensor:
        """The rate of a level as the loss counts it: ``(B, *latent) -> (B,)``. A collective."""
        kl = self.groups(kl_per_dim)
        mean = average_over_ranks(kl.mean(0))
        return torch.where(mean > self.nats, kl, self.nats).sum(1)

    def missing(self, mean_kl_per_dim: Tensor) -> Tensor:
        """What the mean KL of a split, ``(*latent)``, lacks of the free bits: ``-> ()`` nats."""
        return (self.nats - self.groups(mean_kl_per_dim[None])).clamp_min(0.0).sum()


class FreeBitsPerLevel(FreeBits):
    """Each level of a hierarchy may cost ``nats`` for nothing, on average over the batch; see `FreeBits`."""

    def groups(self, kl_per_dim: Tensor) -> Tensor:
        """The sum over a level, ``(B, 1)``."""
        return kl_per_dim.flatten(1).sum(1, keepdim=True)


class Objective(ABC):
    """What training minimises; validation and test evaluate it with its schedules at their final value."""

    num_samples: int = 1
    """Number L of posterior draws for each image."""

    is_sum: bool = False
    """Whether the loss is a weighted sum of rate and distortion, beside which other terms can be weighed."""

    @property
    def rate_weight(self) -> float:
        """Weight of the rate beside the distortion at the end of all schedules; 1 for a bound."""
        return 1.0

    @abstractmethod
    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms: ``loss``, and the ELBO with its two parts whatever is minimised.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            levels: the path of latents from the top, with ``num_samples`` draws.
            decoded: ``p(x | z)`` of these draws, parameters ``(L, B, ...)``.
            step: optimizer steps taken, for schedules. None: an evaluation, with the final values of schedules, and
                without what belongs to a whole batch in the loss; see `batch_loss`.
        """

    def problems(self, num_levels: int) -> list[str]:
        """Why it cannot train a model of so many levels; empty if it can."""
        return []

    def batch_terms(self, latent_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """Shapes of what `batch_loss` is made of, by name: means over images, in an evaluation over the whole split."""
        return {}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """What the loss of an image has of all images together, in nats: of means of `batch_terms`."""
        return 0.0


class ELBO(Objective):
    """``distortion_weight * distortion + beta * rate``.

    ``beta: 1`` is the evidence lower bound (Kingma and Welling 2014, eq. 3 and 10); another beta is the beta-VAE
    (Higgins et al. 2017). The KL is in closed form; the draws' distortions are *averaged*.

    Args:
        beta: weight of the rate: a number or a schedule (warm-up, cycles).
        free_bits: nats that each latent dimension may cost for nothing, or a `FreeBits`; 0: none.
        num_samples: number L of posterior samples for each image.
        distortion_weight: 0 trains on the rate alone, as a study of what the two terms do.
    """

    is_sum = True

    @checked
    def __init__(
        self,
        beta: NotNegativeFloat | Schedule = 1.0,
        free_bits: NotNegativeFloat | FreeBits = 0.0,
        num_samples: PositiveInt = 1,
        distortion_weight: NotNegativeFloat = 1.0,
    ) -> None:
        self.beta = beta
        self.free_bits = free_bits if isinstance(free_bits, FreeBits) else FreeBits(free_bits) if free_bits else None
        self.num_samples = num_samples
        self.distortion_weight = distortion_weight

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`."""
        distortion = -decoded.log_prob(x).mean(0)  # -E_q log p(x|z)
        rates = [level.rate() for level in levels]  # KL(q || p)
        paid, of_batch = rates, {}
        if self.free_bits is not None:
            kls = [level.kl_per_dim() for level in levels]
            if step is None:
                of_batch = dict(zip(_kl_names(len(levels)), kls, strict=True))
            else:
                paid = [self.free_bits.paid(kl) for kl in kls]
        beta = self._beta(step)
        loss = self.distortion_weight * distortion + beta * _sum(paid)
        return Step(_terms(loss, rates, distortion), decoded, {} if step is None else {"beta": beta}, of_batch)

    def _beta(self, step: int | None) -> float:
        if not isinstance(self.beta, Schedule):
            return self.beta
        return self.beta.final if step is None else self.beta(step)

    @property
    def rate_weight(self) -> float:
        """``beta / distortion_weight``, the former at its final value."""
        return self._beta(None) / self.distortion_weight if self.distortion_weight else math.inf

    def batch_terms(self, latent_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """With free bits, the KL of each latent dimension."""
        if self.free_bits is None:
            return {}
        return dict(zip(_kl_names(len(latent_shapes)), latent_shapes, strict=True))

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """What the rates lack of the free bits: with the rate, eq. 15 of Kingma et al. 2016 over the whole split."""
        if self.free_bits is None:
            return 0.0
        return self._beta(None) * _sum([self.free_bits.missing(kl) for kl in means.values()])


class IWAE(Objective):
    """The importance-weighted bound of k samples (Burda et al. 2016, eq. 8), with its plain reparametrised gradient.

    Args:
        num_samples: k.
    """

    @checked
    def __init__(self, num_samples: PositiveInt = 5) -> None:
        self.num_samples = num_samples

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`. ``rate`` and ``distortion`` are those of the ELBO of the same samples."""
        log_likelihood = decoded.log_prob(x)  # log p(x|z), (k, B)
        loss = -importance_weighted_bound(log_weights(log_likelihood, levels))
        return Step(_elbo_terms(loss, log_likelihood, levels), decoded)


class DReG(IWAE):
    """The importance-weighted bound with doubly reparametrised gradients for the encoder; of one level.

    Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", 2019, eq. 8: the encoder
    gets ``sum_k w~_k^2 d log w_k / dz_k dz_k/dphi`` (its score term is gone, and with it the vanishing signal-to-noise
    ratio at large k); decoder and prior keep the usual ``sum_k w~_k grad log p(x, z_k)``. The value is that of `IWAE`.
    """

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`."""
        (level,) = levels
        z, log_likelihood = level.z, decoded.log_prob(x)  # log p(x|z), (k, B)
        held = level._replace(posterior=level.posterior.detach())  # phi acts through z alone
        log_w = log_weights(log_likelihood, [held])
        weights = log_w.detach().softmax(0)  # w~, (k, B)
        if z.requires_grad:  # on its way through z the gradient picks up the second factor w~
            z.register_hook(lambda grad: grad * weights.reshape(*weights.shape, *[1] * (grad.ndim - 2)))
        surrogate = -(weights * log_w).sum(0)
        loss = surrogate + (-importance_weighted_bound(log_w.detach()) - surrogate.detach())
        return Step(_elbo_terms(loss, log_likelihood, levels), decoded)

    def problems(self, num_levels: int) -> list[str]:
        """Several levels: a draw is also a parameter of the levels below, which eq. 8 does not cover."""
        if num_levels == 1:
            return []
        return [f"DReG: it is an objective of one level of latents, and the model has {num_levels}. Take IWAE."]


def _elbo_terms(loss: Tensor, log_likelihood: Tensor, levels: Sequence[Level]) -> dict[str, Tensor]:
    """A loss ``(B,)`` beside the ELBO of the same samples, which is only reported."""
    rates = [level.rate().detach() for level in levels]
    return _terms(loss, rates, -log_likelihood.detach().mean(0))


def _terms(loss: Tensor, rates: Sequence[Tensor], distortion: Tensor) -> dict[str, Tensor]:
    """The terms by the names of `term_names`."""
    rate = _sum(rates)
    terms = {"loss": loss, "elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
    return terms | {f"rate_{i}": r for i, r in enumerate(rates) if len(rates) > 1}


def _kl_names(num_levels: int) -> list[str]:
    return [KL_PER_DIM] if num_levels == 1 else [f"{KL_PER_DIM}_{i}" for i in range(num_levels)]


def _sum(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0])
