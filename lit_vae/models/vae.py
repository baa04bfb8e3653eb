"""The variational autoencoder: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014."""

from collections.abc import Sequence

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Generator, Tensor

from lit_vae.distributions import Distribution, Reparametrised
from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.abilities import HasBound, HasPosterior
from lit_vae.models.base import NetworkFactory
from lit_vae.models.with_realism import WithRealism
from lit_vae.noise import Draws
from lit_vae.objectives import Level, Objective, Step
from lit_vae.objectives.bounds import term_names
from lit_vae.posteriors import GaussianPosterior, PosteriorFactory
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism

MIN_RATE_WEIGHT = 0.1
"""Relative to a distortion of weight 1. Below it, latents drawn from the prior do not look like those of images."""


class VariationalAutoencoder(WithRealism, HasBound):
    """Maximises a bound of ``log p(x)`` with a posterior ``q(z|x)``; z is one latent or a hierarchy of latents.

    A family defines the structure of its latents: `encode`, `path` and `sample_latents`.
    """

    gaussian_posterior: bool = True
    gaussian_prior: bool = True

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Minus the bound, eq. 10: ``-E_q log p(x|z) + KL(q(z|x) || p(z))``, in nats per image."""
        x, y = batch
        levels, decoded = self.path(self.encode(x, y), y, self.objective.num_samples, draws)  # z ~ q(z|x), and p(x|z)
        return self.objective(x, levels, decoded, step)

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """``p(x | z)`` for ``z (B, *latent_shape)``, or for L draws of each ``(L, B, *latent_shape)``."""
        batch = z.shape[: z.ndim - len(self.latent_shape)]
        cond = self.condition(y)
        if cond is not None:
            cond = cond.expand(*batch, -1).flatten(0, -2)
        parameters = self.decoder(z.reshape(-1, *self.latent_shape), cond)
        return self.distribution(parameters.unflatten(0, batch))

    def distribution(self, decoded: Tensor) -> Distribution:
        """``p(x | z)`` from the decoder's output ``(..., decoder_channels, H, W)``."""
        return self.likelihood(decoded)

    def __init__(
        self,
        image_shape: list[int],
        latent_shapes: Sequence[Shape],
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        """``latent_shapes``: one per level, from the top; the decoder reads the last."""
        self.term_names = term_names(len(latent_shapes))
        self.batch_terms = objective.batch_terms(latent_shapes)
        super().__init__(image_shape, latent_shapes[-1], likelihood, optimizer, lr_scheduler, realism)
        self.num_levels = len(latent_shapes)
        self.objective = objective
        if objective.rate_weight < MIN_RATE_WEIGHT:
            self.sampling_caveat = (
                f"its KL has a small weight ({objective.rate_weight:g}): latents drawn from N(0, I) are not those of"
                " images, and decode to noise. Fit a prior to the latents (lit-vae fit-prior, or a diffusion model)."
            )

    def batch_losses(self, means: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """The objective's loss over the whole split, such as missing free bits."""
        return {"loss": self.objective.batch_loss(means)}

    def problems(self, spec: ImageSpec) -> list[str]:
        """Also: an objective that does not fit the number of levels, or to which `realism` cannot be added."""
        gaussian = self.gaussian_posterior, self.gaussian_prior
        found = super().problems(spec) + self.objective.problems(self.num_levels, *gaussian)
        if self.realism is not None and not self.objective.is_sum:
            found.append(
                f"{type(self).__name__}: {type(self.objective).__name__} is no sum of rate and distortion, so the terms"
                " of model.realism cannot be added to it. Take lit_vae.objectives.ELBO, or remove model.realism."
            )
        return found


class VAE(VariationalAutoencoder, HasPosterior):
    """One latent: ``p(x) = int p(x|z) p(z) dz``, with a posterior ``q(z|x)``.

    Subclasses change one thing: labels (CVAE), another decoder (PixelVAE), a small beta (KLAutoencoder), weights in
    closed form (PCA).

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        prior: ``p(z)``; its ``shape`` is the latent's.
        encoder: network from image to the posterior's parameters.
        decoder: network from latent to the likelihood's parameters.
        likelihood: ``p(x|z)``.
        objective: the bound, such as `ELBO` (beta, free bits) or `IWAE`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms; null: none.
        posterior: ``q(z|x)`` from the encoder's output; null: a diagonal Gaussian.
    """

    def encode(self, x: Tensor, y: Tensor) -> Reparametrised:
        """``q(z | x)``, ``(B, *latent)``; the label ``y`` is used if the family has ``num_classes``."""
        return self.posterior(self.encoder(x, self.condition(y)))

    def path(
        self, encoded: Reparametrised, y: Tensor, num_samples: int, draws: Draws | None = None, first: int = 0
    ) -> tuple[list[Level], Distribution]:
        """``z ~ q(z|x)``, reparametrised, with q and p(z); and ``p(x|z)``."""
        z = encoded.rsample(num_samples, draws, first)
        return [Level(encoded, self.prior(y), z)], self.decode(z, y)

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        prior: Prior,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
        posterior: PosteriorFactory | None = None,
    ) -> None:
        super().__init__(image_shape, [prior.shape], likelihood, objective, optimizer, lr_scheduler, realism)
        self.prior = prior
        self.posterior = (posterior or GaussianPosterior)(prior.shape)
        self.gaussian_posterior, self.gaussian_prior = self.posterior.is_gaussian, prior.is_gaussian
        self.encoder = encoder(self.image_shape, self.posterior.in_shape, self.num_classes)
        prior.connect(self.encode, self.image_shape, self.num_classes)
        self.decoder = decoder(prior.shape, (self.decoder_channels, *self.image_shape[1:]), self.num_classes)

    def on_fit_start(self) -> None:
        """Also let the prior start from the training images."""
        super().on_fit_start()
        self.prior.start(getattr(self.trainer, "datamodule", None))

    def on_train_end(self) -> None:
        """Tell what became of the prior."""
        for caveat in self.prior.caveats():
            rank_zero_warn(caveat)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """Posterior mean."""
        return self.encode(x, y).mean

    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Draws from the prior."""
        return self.prior(self.labels_for(n, y)).sample(generator, temperature)

    def problems(self, spec: ImageSpec) -> list[str]:
        """Also: a prior with another number of classes than the model."""
        found = super().problems(spec) + self.prior.problems(self.gaussian_posterior)
        prior_classes = self.prior.num_classes
        if prior_classes and prior_classes != self.num_classes:
            remedy = (
                "Set both to the number of labels."
                if self.num_classes
                else "The model has no labels: take lit_vae.priors.StandardNormal, or a CVAE."
            )
            found.append(
                f"{type(self).__name__}: model.prior.num_classes (={prior_classes}) is not model.num_classes"
                f" (={self.num_classes}). {remedy}"
            )
        return found
