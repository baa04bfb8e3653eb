"""The first stage of latent diffusion: Rombach et al., "High-Resolution Image Synthesis with LDMs", 2022."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.vae import VAE
from lit_vae.objectives import Objective
from lit_vae.priors import StandardNormal
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism


class KLAutoencoder(VAE):
    """A VAE with a *map* of latents: ``distortion + beta KL``, perceptual and adversarial terms (eq. 25).

    Its beta is small, such as 1e-6: the KL keeps the scale of the latents bounded and their space smooth. It does not
    make them follow N(0, I), so `sample` decodes to noise. Fit a prior, such as a diffusion model, to the latents;
    scale them first (``lit-vae latents``).

    Published weights apply to sums over an image, as here. ``L1 + w LPIPS`` for each value is a `Laplace` of scale 1
    with a `Perceptual` of weight w; ``kl_weight`` is ``beta``; a learned log-variance is the Laplace's log-scale.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        latent_shape: ``[c, h, w]``.
        encoder: network from image to posterior mean and log-variance.
        decoder: network from latent to the likelihood's parameters.
        likelihood: ``p(x|z)``.
        objective: `ELBO` with a small beta.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms; null: none.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        latent_shape: list[PositiveInt],
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        if len(latent_shape) != 3:
            raise ValueError(
                f"KLAutoencoder: latent_shape (={latent_shape}) must be a map [channels, height, width]."
                " Set model.init_args.latent_shape; for a vector take lit_vae.models.VAE."
            )
        prior = StandardNormal(latent_shape)
        super().__init__(image_shape, prior, encoder, decoder, likelihood, objective, optimizer, lr_scheduler, realism)
