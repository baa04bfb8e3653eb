"""Bounds of log p(x) for one latent or a hierarchy of latents: ELBO and importance weighting.

All terms are per image, ``(B,)`` in nats; only the LightningModule averages over the batch. Posterior samples are the
first dimension of a latent, ``z (L, B, *latent)``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution
from lit_vae.images import Shape
from lit_vae.objectives.balance import KLBalance
from lit_vae.objectives.free_bits import FreeBits
from lit_vae.objectives.level import Level
from lit_vae.objectives.step import Step
from lit_vae.ranges import NotNegativeFloat, PositiveInt, checked
from lit_vae.schedules import Schedule

KL_PER_DIM = "kl_per_dim"


def term_names(num_levels: int) -> tuple[str, ...]:
    """Names of an objective's terms. With several levels, each level also has a rate of its own."""
    return ("loss", "elbo", "rate", "distortion", *(f"rate_{i}" for i in range(num_levels) if num_levels > 1))


def importance_weighted_bound(log_w: Tensor) -> Tensor:
    """``log 1/k sum_k w_k`` of ``log_w (k, B)``: ``-> (B,)`` nats; for k = 1 a one-sample estimate of the ELBO.

    Burda et al., "Importance Weighted Autoencoders", 2016, eq. 8. Its expectation does not decrease with k.
    """
    return torch.logsumexp(log_w, 0) - math.log(log_w.shape[0])


def log_weights(log_likelihood: Tensor, levels: Sequence[Level]) -> Tensor:
    """``log p(x, z) - log q(z | x)`` of each draw, given ``log p(x | z) (L, B)``: ``-> (L, B)`` nats."""
    log_w = log_likelihood
    for level in levels:
        log_w = log_w + level.prior.log_prob(level.z) - level.posterior.log_prob(level.z)
    return log_w


class Objective(ABC):
    """The loss of a model. Validation and test use the final values of its schedules."""

    num_samples: int = 1
    """Number L of posterior draws per image."""

    is_sum: bool = False
    """Whether the loss is a weighted sum of rate and distortion, so that other terms can be added to it."""

    @property
    def rate_weight(self) -> float:
        """Weight of the rate relative to the distortion at the end of all schedules; 1 for a bound."""
        return 1.0

    @abstractmethod
    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms: ``loss``, and always the ELBO with its two parts.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            levels: the latents from the top, with ``num_samples`` draws.
            decoded: ``p(x | z)`` at these draws, parameters ``(L, B, ...)``.
            step: optimizer steps taken, for schedules. None: evaluation, with the final values of schedules and
                without the part of the loss that depends on all images together (`batch_loss`).
        """

    def problems(self, num_levels: int, gaussian_posterior: bool = True, gaussian_prior: bool = True) -> list[str]:
        """Reasons why it cannot train a model with these levels; empty if it can."""
        return []

    def batch_terms(self, latent_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """Shapes, by name, of the means over the whole split that `batch_loss` needs in an evaluation."""
        return {}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """Part of the loss that depends on all images of a split together, in nats, from the means of `batch_terms`."""
        return 0.0


class ELBO(Objective):
    """``distortion_weight * distortion + beta * rate``.

    ``beta: 1`` is the evidence lower bound (Kingma and Welling 2014, eq. 3 and 10); another beta is the beta-VAE
    (Higgins et al. 2017). The KL is in closed form where there is one; the distortion is a mean over the draws.

    Args:
        beta: weight of the rate: a number or a schedule (warm-up, cycles).
        free_bits: free nats of each latent dimension, or a `FreeBits`; 0: none.
        num_samples: number L of posterior samples per image.
        distortion_weight: weight of the distortion; 0 trains on the rate alone.
        balance: weights of the levels while beta rises; null: none.
    """

    is_sum = True

    @checked
    def __init__(
        self,
        beta: NotNegativeFloat | Schedule = 1.0,
        free_bits: NotNegativeFloat | FreeBits = 0.0,
        num_samples: PositiveInt = 1,
        distortion_weight: NotNegativeFloat = 1.0,
        balance: KLBalance | None = None,
    ) -> None:
        self.beta = beta
        self.free_bits = free_bits if isinstance(free_bits, FreeBits) else FreeBits(free_bits) if free_bits else None
        self.num_samples = num_samples
        self.distortion_weight = distortion_weight
        self.balance = balance

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`."""
        distortion = -decoded.log_prob(x).mean(0)  # -E_q log p(x|z)
        rates = [level.rate() for level in levels]  # KL(q || p)
        paid, of_batch = rates, {}
        if self.free_bits is not None:
            kls = [self.free_bits.of(level) for level in levels]
            if step is None:
                of_batch = dict(zip(_kl_names(len(levels)), kls, strict=True))
            else:
                paid = [self.free_bits.paid(kl, index) for index, kl in enumerate(kls)]
        beta = self._beta(step)
        if self.balance is not None and step is not None and beta < self._beta(None):
            shapes = [tuple(level.z.shape[2:]) for level in levels]
            weights = self.balance.weights(rates, shapes).unbind()
            paid = [weight * rate for weight, rate in zip(weights, rates, strict=True)]
        loss = self.distortion_weight * distortion + beta * _sum(paid)
        return Step(_terms(loss, rates, distortion), decoded, {} if step is None else {"beta": beta}, of_batch)

    def _beta(self, step: int | None) -> float:
        if not isinstance(self.beta, Schedule):
            return self.beta
        return self.beta.final if step is None else self.beta(step)

    @property
    def rate_weight(self) -> float:
        """``beta / distortion_weight`` with the final value of beta."""
        return self._beta(None) / self.distortion_weight if self.distortion_weight else math.inf

    def problems(self, num_levels: int, gaussian_posterior: bool = True, gaussian_prior: bool = True) -> list[str]:
        """Free bits for other levels, or of each dimension where the KL has no term for each dimension."""
        found = [] if self.free_bits is None else self.free_bits.problems(num_levels)
        if self.balance is not None and not isinstance(self.beta, Schedule):
            found.append(
                f"ELBO: balance acts while beta rises, but beta (={self.beta:g}) is constant. Take"
                " lit_vae.schedules.LinearWarmup for beta, or set balance: null."
            )
        if self.balance is not None and self.free_bits is not None:
            found.append(
                "ELBO: balance and free_bits both change the rate of a level. Set one of them to null or 0 in"
                " model.init_args.objective.init_args."
            )
        gaussian = gaussian_posterior and gaussian_prior
        if gaussian or self.free_bits is None or not self.free_bits.per_dim:
            return found
        return [
            *found,
            f"{type(self).__name__}: free_bits counts the KL of each latent dimension, which has no closed form unless"
            " posterior and prior are Gaussian. Take lit_vae.objectives.FreeBitsPerLevel, or set free_bits: 0.",
        ]

    def batch_terms(self, latent_shapes: Sequence[Shape]) -> dict[str, Shape]:
        """With free bits, the KLs that are compared with them."""
        if self.free_bits is None:
            return {}
        return dict(zip(_kl_names(len(latent_shapes)), map(self.free_bits.shape, latent_shapes), strict=True))

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """Free bits that the rates fall short of: added to the rate, eq. 15 of Kingma et al. 2016 for the split."""
        if self.free_bits is None:
            return 0.0
        missing = [self.free_bits.missing(kl, index) for index, kl in enumerate(means.values())]
        return self._beta(None) * _sum(missing)


class IWAE(Objective):
    """The importance-weighted bound of k samples (Burda et al. 2016, eq. 8), with the reparametrised gradient.

    Args:
        num_samples: number k of posterior samples per image.
    """

    @checked
    def __init__(self, num_samples: PositiveInt = 5) -> None:
        self.num_samples = num_samples

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`. ``rate`` and ``distortion`` belong to the ELBO of the same samples."""
        log_likelihood = decoded.log_prob(x)  # log p(x|z), (k, B)
        loss = -importance_weighted_bound(log_weights(log_likelihood, levels))
        return Step(_elbo_terms(loss, log_likelihood, levels), decoded)


class DReG(IWAE):
    """The bound of `IWAE` with doubly reparametrised gradients for the encoder. One level of latents only.

    Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", 2019, eq. 8: the encoder
    gets ``sum_k w~_k^2 d log w_k / dz_k dz_k/dphi``, without the score term whose signal-to-noise ratio vanishes at
    large k. Decoder and prior keep the usual gradient ``sum_k w~_k grad log p(x, z_k)``.
    """

    def __call__(self, x: Tensor, levels: Sequence[Level], decoded: Distribution, step: int | None = None) -> Step:
        """Per-image terms; see `Objective`."""
        (level,) = levels
        assert isinstance(level.posterior, DiagonalGaussian)  # by `problems`
        z, log_likelihood = level.z, decoded.log_prob(x)  # log p(x|z), (k, B)
        held = level._replace(posterior=level.posterior.detach())  # gradients reach phi through z only
        log_w = log_weights(log_likelihood, [held])
        weights = log_w.detach().softmax(0)  # w~, (k, B)
        if z.requires_grad:  # the second factor w~ of eq. 8, for the encoder only
            z.register_hook(lambda grad: grad * weights.reshape(*weights.shape, *[1] * (grad.ndim - 2)))
        surrogate = -(weights * log_w).sum(0)
        loss = surrogate + (-importance_weighted_bound(log_w.detach()) - surrogate.detach())
        return Step(_elbo_terms(loss, log_likelihood, levels), decoded)

    def problems(self, num_levels: int, gaussian_posterior: bool = True, gaussian_prior: bool = True) -> list[str]:
        """Several levels: eq. 8 does not cover draws that are also parameters of the levels below."""
        found = []
        if num_levels > 1:
            found.append(f"DReG: it needs a model with one level of latents, but this one has {num_levels}. Take IWAE.")
        if not gaussian_posterior:
            found.append("DReG: it needs a Gaussian posterior. Take IWAE, or remove model.init_args.posterior.")
        return found


def _elbo_terms(loss: Tensor, log_likelihood: Tensor, levels: Sequence[Level]) -> dict[str, Tensor]:
    """A loss ``(B,)``, and the ELBO of the same samples for the log."""
    rates = [level.rate().detach() for level in levels]
    return _terms(loss, rates, -log_likelihood.detach().mean(0))


def _terms(loss: Tensor, rates: Sequence[Tensor], distortion: Tensor) -> dict[str, Tensor]:
    """The terms under the names of `term_names`."""
    rate = _sum(rates)
    terms = {"loss": loss, "elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
    return terms | {f"rate_{i}": r for i, r in enumerate(rates) if len(rates) > 1}


def _kl_names(num_levels: int) -> list[str]:
    return [KL_PER_DIM] if num_levels == 1 else [f"{KL_PER_DIM}_{i}" for i in range(num_levels)]


def _sum(values: Sequence[Tensor]) -> Tensor:
    return sum(values[1:], values[0])
