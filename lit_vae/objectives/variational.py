"""What a variational autoencoder maximises, as components chosen by ``class_path``: a bound and its gradient estimator.

All share one call, so that VAE, CVAE and what comes later do not fork the training step.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution
from lit_vae.images import Shape
from lit_vae.noise import Draws
from lit_vae.objectives.elbo import free_bits, importance_weighted_bound, rate_distortion
from lit_vae.ranges import NotNegativeFloat, PositiveInt, checked
from lit_vae.schedules import Schedule, as_schedule

Decode = Callable[[Tensor], Distribution]
"""Latents ``(L, B, *latent)`` to ``p(x | z)`` with parameters ``(L, B, ...)``."""

KL_PER_DIM = "kl_per_dim"


class Terms(NamedTuple):
    """Per-image terms, each ``(B,)`` in nats: what is minimised, and the ELBO's parts whatever is minimised.

    ``decoded`` is the likelihood of the L samples that they are of, parameters ``(L, B, ...)``. ``of_batch`` has, in an
    evaluation, ``(B, *shape)`` for each of `Objective.batch_terms`.
    """

    loss: Tensor
    rate: Tensor
    distortion: Tensor
    decoded: Distribution
    of_batch: dict[str, Tensor] = {}  # noqa: RUF012  (never mutated)

    def named(self) -> dict[str, Tensor]:
        """The terms and the ELBO, ``-(rate + distortion)``, by the names that they are logged under."""
        elbo = -(self.rate + self.distortion)
        return {"loss": self.loss, "elbo": elbo, "rate": self.rate, "distortion": self.distortion}


class Objective(ABC):
    """Minimised by training; evaluated with its schedules at their final value by validation and test."""

    is_sum: bool = False
    """Whether the loss is a weighted sum of rate and distortion, beside which other terms can be weighed."""

    @property
    def rate_weight(self) -> float:
        """How much the rate weighs beside the distortion, once schedules have run their course: of a bound 1."""
        return 1.0

    @abstractmethod
    def __call__(
        self,
        x: Tensor,
        posterior: DiagonalGaussian,
        prior: DiagonalGaussian,
        decode: Decode,
        step: int | None = None,
        draws: Draws | None = None,
    ) -> Terms:
        """Per-image terms of images ``x (B, C, H, W)``.

        Args:
            x: images in [-1, 1].
            posterior: ``q(z | x)``, ``(B, *latent)``.
            prior: ``p(z)``, ``(B, *latent)``.
            decode: latents to likelihood.
            step: optimizer step for schedules. None: an evaluation, with their final value, and without what belongs
                to a whole batch in the loss, see `batch_loss`.
            draws: noise of the posterior samples; None: of the global generator.
        """

    def batch_terms(self, latent_shape: Shape) -> dict[str, Shape]:
        """Shapes of what `batch_loss` is made of, by name: means over images, in an evaluation over the whole split."""
        return {}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """What the loss of an image has of all images together, in nats: of means of `batch_terms`."""
        return 0.0

    def scalars(self, step: int) -> dict[str, float]:
        """What it changes over time, by the names that it is logged under."""
        return {}


class ELBO(Objective):
    """``distortion_weight * distortion + beta * rate`` with L posterior samples.

    ``beta: 1`` is the evidence lower bound (Kingma and Welling 2014); another beta is the beta-VAE (Higgins et al.
    2017). The samples' terms are *averaged*.

    Args:
        beta: weight of the rate: a number or a schedule (warm-up, cycles).
        free_bits: nats that each latent dimension may cost for nothing, on average over the batch.
        num_samples: number L of posterior samples for each image.
        distortion_weight: 0 trains on the rate alone, as a study of what the two terms do.
    """

    is_sum = True

    @checked
    def __init__(
        self,
        beta: NotNegativeFloat | Schedule = 1.0,
        free_bits: NotNegativeFloat = 0.0,
        num_samples: PositiveInt = 1,
        distortion_weight: NotNegativeFloat = 1.0,
    ) -> None:
        self.beta = as_schedule(beta)
        self.free_bits = free_bits
        self.num_samples = num_samples
        self.distortion_weight = distortion_weight

    @property
    def rate_weight(self) -> float:
        """``beta / distortion_weight``, the former at its final value."""
        return self.beta.final / self.distortion_weight if self.distortion_weight else math.inf

    def scalars(self, step: int) -> dict[str, float]:
        """``beta`` at ``step``."""
        return {"beta": self.beta(step)}

    def __call__(
        self,
        x: Tensor,
        posterior: DiagonalGaussian,
        prior: DiagonalGaussian,
        decode: Decode,
        step: int | None = None,
        draws: Draws | None = None,
    ) -> Terms:
        """Per-image terms; see `Objective`."""
        z = posterior.rsample(self.num_samples, draws)
        decoded = decode(z)
        rate, distortion = rate_distortion(x, decoded, posterior, prior)
        paid_rate, of_batch = rate, {}
        if self.free_bits > 0.0:
            kl_per_dim = posterior.kl_per_dim(prior)
            if step is None:
                of_batch = {KL_PER_DIM: kl_per_dim}
            else:
                paid_rate = free_bits(kl_per_dim, self.free_bits)
        beta = self.beta.final if step is None else self.beta(step)
        return Terms(self.distortion_weight * distortion + beta * paid_rate, rate, distortion, decoded, of_batch)

    def batch_terms(self, latent_shape: Shape) -> dict[str, Shape]:
        """With free bits, the KL of each latent dimension."""
        return {KL_PER_DIM: latent_shape} if self.free_bits > 0.0 else {}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """What dimensions below ``free_bits`` are short of it: with the rate, eq. 15 of Kingma et al. 2016."""
        if self.free_bits == 0.0:
            return 0.0
        return self.beta.final * (self.free_bits - means[KL_PER_DIM]).clamp_min(0.0).sum()


class IWAE(Objective):
    """The importance-weighted bound of k samples (Burda et al. 2016, eq. 8), with its plain reparametrised gradient."""

    @checked
    def __init__(self, num_samples: PositiveInt = 5) -> None:
        self.num_samples = num_samples

    def __call__(
        self,
        x: Tensor,
        posterior: DiagonalGaussian,
        prior: DiagonalGaussian,
        decode: Decode,
        step: int | None = None,
        draws: Draws | None = None,
    ) -> Terms:
        """Per-image terms; see `Objective`. ``rate`` and ``distortion`` are those of the ELBO of the same samples."""
        z = posterior.rsample(self.num_samples, draws)
        decoded = decode(z)
        log_likelihood = decoded.log_prob(x)  # log p(x|z), (k, B)
        log_w = log_likelihood + prior.log_prob(z) - posterior.log_prob(z)
        bound = importance_weighted_bound(log_w)
        return Terms(-bound, posterior.kl(prior).detach(), -log_likelihood.detach().mean(0), decoded)


class DReG(IWAE):
    """The importance-weighted bound with doubly reparametrised gradients for the encoder.

    Tucker et al., "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", 2019, eq. 8: the encoder
    gets ``sum_k w~_k^2 d log w_k / dz_k dz_k/dphi`` (its score term is gone, and with it the vanishing signal-to-noise
    ratio at large k); decoder and prior keep the usual ``sum_k w~_k grad log p(x, z_k)``. The value is that of `IWAE`.
    """

    def __call__(
        self,
        x: Tensor,
        posterior: DiagonalGaussian,
        prior: DiagonalGaussian,
        decode: Decode,
        step: int | None = None,
        draws: Draws | None = None,
    ) -> Terms:
        """Per-image terms; see `Objective`."""
        z = posterior.rsample(self.num_samples, draws)
        decoded = decode(z)
        log_likelihood = decoded.log_prob(x)  # log p(x|z), (k, B)
        log_w = log_likelihood + prior.log_prob(z) - posterior.detach().log_prob(z)  # phi acts through z alone
        weights = log_w.detach().softmax(0)  # w~, (k, B)
        if z.requires_grad:  # on its way through z the gradient picks up the second factor w~
            z.register_hook(lambda grad: grad * weights.reshape(*weights.shape, *[1] * (grad.ndim - 2)))
        surrogate = -(weights * log_w).sum(0)
        loss = surrogate + (-importance_weighted_bound(log_w.detach()) - surrogate.detach())
        return Terms(loss, posterior.kl(prior).detach(), -log_likelihood.detach().mean(0), decoded)
