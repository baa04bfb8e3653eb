"""A decoder that draws pixel by pixel, given features of the latent."""

import torch
from torch import Generator, Tensor

from lit_vae.distributions import Distribution, NoiseSource
from lit_vae.likelihoods import Likelihood
from lit_vae.models.vae import VariationalAutoencoder
from lit_vae.networks.autoregressive import Autoregressive, AutoregressiveFactory, generate


class WithPixelDecoder(VariationalAutoencoder):
    """``p(x|z) = prod_i p(x_i | x_<i, f(z))``: the decoder gives f(z), an autoregressive network the pixels.

    A family sets ``decoder_channels``, the channels of f(z), before its other parts, and ends with `add_network`.
    """

    network: Autoregressive
    decoder_channels: int = 0

    def add_network(self, network: AutoregressiveFactory) -> None:
        """Build the network of the pixels."""
        channels, *grid = self.image_shape
        parameters = self.likelihood.num_parameters(channels)
        self.network = network(channels, parameters, (grid[0], grid[1]), 0, self.decoder_channels)

    def distribution(self, decoded: Tensor) -> Distribution:
        """The pixels' distribution given features ``(..., decoder_channels, H, W)``."""
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
