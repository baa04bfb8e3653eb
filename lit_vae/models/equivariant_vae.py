"""A VAE whose latents turn and shrink with the image: Kouzelis et al., "EQ-VAE", 2025."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_vae.distributions import Distribution
from lit_vae.equivariance import Equivariance, Transformation
from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.vae import VAE
from lit_vae.noise import Draws
from lit_vae.objectives import Level, Objective, Step
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism


class EquivariantVAE(VAE):
    """A VAE that learns to decode ``tau(z)`` to ``tau(x)``, with z from ``q(z|x)`` and a transformation tau (eq. 5).

    Its latents become smoother in space, so that a diffusion model learns them faster. An evaluation is that of a
    `VAE`. The terms of a smaller image are sums over fewer pixels.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        prior: ``p(z)``; its ``shape`` is the latent's, a map.
        encoder: network from image to posterior mean and log-variance.
        decoder: network from latent to the likelihood's parameters, for maps of any size.
        likelihood: ``p(x|z)``.
        objective: the bound, such as `ELBO`.
        optimizer: over all parameters.
        equivariance: how images and latents are transformed.
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms; null: none.
    """

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Minus the bound; in training that of ``tau(x)`` given ``tau(z)``."""
        if step is None:
            return super().step(batch, step, draws)
        x, y = batch
        q = self.encode(x, y)
        z = q.rsample(self.objective.num_samples, draws)
        tau = self.equivariance.draw(draws, *self.latent_shape[1:])
        target = tau(x, self.stride)
        result = self.objective(target, [Level(q, self.prior(y), z)], self._decode_map(z, tau), step)
        return result._replace(target=target)

    def _decode_map(self, z: Tensor, tau: Transformation) -> Distribution:
        parameters = self.decoder(tau(z.flatten(0, 1)), None)
        return self.distribution(parameters.unflatten(0, z.shape[:2]))

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
        equivariance: Equivariance,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        shape = prior.shape
        if len(shape) != 3 or any(image % grid for image, grid in zip(image_shape[1:], shape[1:], strict=True)):
            raise ValueError(
                f"EquivariantVAE: the shape of the latent (={list(shape)}) must be a map whose"
                f" sides divide those of the images ({list(image_shape[1:])}). Set model.init_args.prior, or take"
                " lit_vae.models.VAE."
            )
        super().__init__(image_shape, prior, encoder, decoder, likelihood, objective, optimizer, lr_scheduler, realism)
        self.equivariance = equivariance
        self.stride = image_shape[1] // shape[1]

    def check_networks(self) -> list[str]:
        """Also run the decoder on a smaller map."""
        if found := super().check_networks():
            return found
        tau = self.equivariance.smallest(*self.latent_shape[1:])
        z = torch.zeros(1, 1, *self.latent_shape).to(next(self.parameters()))
        size = tuple(side * self.stride for side in tau.size)
        try:
            with torch.no_grad():
                made = tuple(self._decode_map(z, tau).mean.shape[-2:])
        except RuntimeError as error:
            return [f"{_ANY_SIZE} It fails on {list(tau.size)}: {error}"]
        return [] if made == size else [f"{_ANY_SIZE} From {list(tau.size)} it makes {list(made)}, not {list(size)}."]


_ANY_SIZE = "EquivariantVAE: the decoder must take latent maps of any size. Take a convolutional one, or a VAE."
