"""A VAE with an autoregressive decoder: Gulrajani et al., "PixelVAE: A Latent Variable Model for Images", 2017."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.pixel_decoder import WithPixelDecoder
from lit_vae.models.vae import VAE
from lit_vae.networks.autoregressive import AutoregressiveFactory
from lit_vae.objectives import Objective
from lit_vae.posteriors import PosteriorFactory
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked


class PixelVAE(WithPixelDecoder, VAE):
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
        self.add_network(network)
