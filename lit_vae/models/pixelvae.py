"""A VAE with an autoregressive decoder: Gulrajani et al., "PixelVAE: A Latent Variable Model for Images", 2017."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.distributions import Distribution, NoiseSource
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.vae import VAE
from lit_vae.networks.autoregressive import Autoregressive, AutoregressiveFactory, generate
from lit_vae.objectives import Objective
from lit_vae.posteriors import PosteriorFactory
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked


class PixelVAE(VAE):
    """``p(x|z) = prod_i p(x_i | x_<i, f(z))`` (eq. 1): the latent holds the layout, a PixelCNN adds the texture.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        prior: ``p(z)``; its ``shape`` is the latent's.
        encoder: network from image to the posterior's parameters.
        decoder: network from latent to features ``f(z)``, one vector for each pixel.
        network: an autoregressive network that is conditioned on ``f(z)``; a smaller receptive field leaves more to
            the latent.
        likelihood: ``p(x_i | x_<i, z)``.
        objective: the bound, such as `ELBO` (beta, free bits) or `IWAE`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        features: channels of ``f(z)``.
        posterior: ``q(z|x)`` from the encoder's output; null: a diagonal Gaussian.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        prior: Prior,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        network: AutoregressiveFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        features: PositiveInt = 32,
        posterior: PosteriorFactory | None = None,
    ) -> None:
        self.decoder_channels = features
        super().__init__(
            image_shape, prior, encoder, decoder, likelihood, objective, optimizer, lr_scheduler, posterior=posterior
        )
        channels, height, width = self.image_shape
        self.network = network(channels, likelihood.num_parameters(channels), (height, width), 0, features)

    def distribution(self, decoded: Tensor) -> Distribution:
        """The pixels' distribution given features ``(..., features, H, W)``."""
        return AutoregressivePixels(self.network, self.likelihood, decoded)


class AutoregressivePixels(Distribution):
    """``prod_i p(x_i | x_<i, features)`` of images ``(..., C, H, W)`` given ``features (..., F, H, W)``."""

    def __init__(self, network: Autoregressive, likelihood: Likelihood, features: Tensor) -> None:
        self.network, self.likelihood, self.features = network, likelihood, features

    def log_prob(self, x: Tensor) -> Tensor:
        """``sum_i log p(x_i | x_<i, features)``: ``(..., C, H, W) -> (...)`` nats, exact."""
        batch = self.features.shape[:-3]
        every_x = x.expand(*batch, *x.shape[-3:]).flatten(0, -4)
        parameters = self.network(every_x, None, self.features.flatten(0, -4))
        return self.likelihood(parameters.unflatten(0, batch)).log_prob(x)

    @property
    def mean(self) -> Tensor:
        """``E[x_i | x_<i, features]`` along one draw of the pixels, ``(..., C, H, W)``.

        The exact mean is a sum over all images; this estimate has the same expectation. The draw has a fixed seed, so
        the result depends on the features only.
        """
        return self._visit(Generator().manual_seed(0))[1]

    def sample(self, source: NoiseSource = None) -> Tensor:
        """One draw for each element of the batch, pixel by pixel."""
        return self._visit(source)[0]

    def _visit(self, source: NoiseSource) -> tuple[Tensor, Tensor]:
        """A draw, and the mean of each pixel given the pixels drawn before it."""
        batch, flat = self.features.shape[:-3], self.features.flatten(0, -4)

        def draw(parameters: Tensor) -> Tensor:
            """``(B, P) -> (B, 2, C)``."""
            pixel = self.likelihood(parameters[:, :, None, None])
            both = [pixel.sample(source), pixel.mean]
            return torch.stack([t.flatten(1) for t in both], 1)

        visited = generate(self.network, draw, lambda value: value[:, 0], len(flat), None, flat)
        sample, mean = visited.unflatten(0, batch).unbind(len(batch))
        return sample, mean
