"""What VAE and CVAE share: a Gaussian posterior, a Gaussian prior, an objective between them."""

from abc import abstractmethod

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.distributions import DiagonalGaussian, standard_normal
from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import Autoencoder, NetworkFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Objective
from lit_vae.objectives.elbo import importance_weighted_bound, log_weights
from lit_vae.priors import Prior
from lit_vae.realism import Realism

LEAST_RATE_WEIGHT = 0.1
"""Beside a distortion of weight 1; with less the latents of images are said not to follow the prior."""


class VariationalAutoencoder(Autoencoder):
    """A model ``p(x|z,y) p(z|y)`` with an amortised posterior ``q(z|x,y)``, both Gaussian with diagonal covariance."""

    term_names = ("loss", "elbo", "rate", "distortion")

    def __init__(
        self,
        image_shape: list[int],
        prior: Prior,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        realism: Realism | None = None,
        cond_dim: int = 0,
        decoder_channels: int | None = None,
    ) -> None:
        self.batch_terms = objective.batch_terms(prior.shape)
        super().__init__(image_shape, prior.shape, likelihood, optimizer, lr_scheduler, realism)
        self.prior = prior
        self.objective = objective
        if objective.rate_weight < LEAST_RATE_WEIGHT:
            self.not_its_prior = (
                f"its KL has a small weight ({objective.rate_weight:g}): latents drawn from N(0, I) are not those of"
                " images, and decode to noise. Fit a prior to the latents (lit-vae fit-prior, or a diffusion model)."
            )
        posterior_shape: Shape = (2 * prior.shape[0], *prior.shape[1:])
        self.encoder = encoder(self.image_shape, posterior_shape, cond_dim)
        decoder_shape = (decoder_channels or likelihood.num_parameters(self.image_shape[0]), *self.image_shape[1:])
        self.decoder = decoder(prior.shape, decoder_shape, cond_dim)

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        """Posterior ``q(z | x, y)``, ``(B, *latent)``."""

    def _posterior(self, x: Tensor, cond: Tensor | None) -> DiagonalGaussian:
        mean, log_var = self.encoder(x, cond).chunk(2, 1)
        return DiagonalGaussian(mean, log_var)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """Posterior mean."""
        return self.encode(x, y).mean

    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``mean + temperature * std * eps`` of the prior."""
        prior = self.prior(self.labels_for(n, y))
        return prior.mean + temperature * prior.std * standard_normal(tuple(prior.mean.shape), prior.mean, generator)

    def problems(self, spec: ImageSpec) -> list[str]:
        """Also: a prior of other classes than the model is told, an objective that takes no term beside its own."""
        found = super().problems(spec)
        if self.realism is not None and not self.objective.is_sum:
            found.append(
                f"{type(self).__name__}: {type(self.objective).__name__} is no sum of rate and distortion, beside which"
                " the terms of model.realism could be weighed. Take lit_vae.objectives.ELBO, or leave realism out."
            )
        prior_classes = getattr(self.prior, "num_classes", 0)
        if prior_classes and prior_classes != self.num_classes:
            remedy = (
                "Set both to the number of labels."
                if self.num_classes
                else "It is told no labels: take lit_vae.priors.StandardNormal, or a CVAE."
            )
            found.append(
                f"{type(self).__name__}: model.prior.num_classes (={prior_classes}) is not model.num_classes"
                f" (={self.num_classes}). {remedy}"
            )
        return found

    def evaluation_terms(self, batch: Batch, draws: Draws | None) -> dict[str, Tensor]:
        """Loss (schedules at their final value), ELBO and its two parts, ``(B,)`` nats; the objective's batch terms."""
        x, y = batch
        terms = self.objective(x, self.encode(x, y), self.prior(y), lambda z: self.decode(z, y), None, draws)
        return {**self.with_realism(x, terms.named(), terms.decoded), **terms.of_batch}

    def batch_losses(self, means: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """The objective's, such as free bits."""
        return {"loss": self.objective.batch_loss(means)}

    @torch.no_grad()
    def importance_weighted_nll(
        self, x: Tensor, y: Tensor, num_samples: int, chunk: int, draws: Draws | None = None
    ) -> Tensor:
        """``-log 1/k sum_k p(x, z_k) / q(z_k | x)`` with ``k = num_samples``: ``-> (B,)`` nats.

        Burda et al. 2016, eq. 8: in expectation an upper bound of -log p(x) that tightens as k grows. At most ``chunk``
        samples of each image are decoded at once, whatever k.
        """
        posterior, prior = self.encode(x, y), self.prior(y)
        log_w = []
        for start in range(0, num_samples, chunk):
            z = posterior.rsample(min(chunk, num_samples - start), draws, first=start)
            log_w.append(log_weights(x, z, self.decode(z, y), posterior, prior))
        return -importance_weighted_bound(torch.cat(log_w))
