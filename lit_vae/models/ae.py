"""The plain autoencoder, without prior and posterior: the baseline that shows the effect of the KL term."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.distributions import standard_normal
from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.with_realism import WithRealism
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism


class AE(WithRealism):
    """Minimises the distortion ``-log p(x | z)`` at ``z = encoder(x)``.

    It has no likelihood of an image, only of an image given its latent: no ELBO, no bits per dimension.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        latent_shape: ``[d]`` for a vector, ``[c, h, w]`` for a map.
        encoder: network from image to latent.
        decoder: network from latent to the likelihood's parameters.
        likelihood: ``p(x|z)``; `FixedGaussian` makes it the squared error.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms; null: none.
    """

    term_names = ("loss", "distortion")
    sampling_caveat = "it has no prior: drawn from N(0, I). See lit-vae fit-prior."

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Distortion ``-log p(x | z)`` in nats per image."""
        x, y = batch
        decoded = self.decode(self.embed(x, y), y)
        distortion = -decoded.log_prob(x)
        return Step({"loss": distortion, "distortion": distortion}, decoded)

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        latent_shape: list[PositiveInt],
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        super().__init__(image_shape, tuple(latent_shape), likelihood, optimizer, lr_scheduler, realism)
        self.encoder = encoder(self.image_shape, self.latent_shape, 0)
        self.decoder = decoder(self.latent_shape, (self.decoder_channels, *self.image_shape[1:]), 0)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """``encoder(x)``."""
        return self.encoder(x, None)

    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Draws from ``N(0, temperature^2 I)``. The latents do not follow it: fit a prior for good samples."""
        return temperature * standard_normal((n, *self.latent_shape), next(self.parameters()), generator)
