"""A hierarchy of latents with an autoregressive decoder: Gulrajani et al., "PixelVAE", 2017, sec. 3.2."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_vae.hierarchies import HierarchyFactory
from lit_vae.likelihoods import Likelihood
from lit_vae.models.hierarchical_vae import HierarchicalVAE
from lit_vae.models.pixel_decoder import WithPixelDecoder
from lit_vae.networks.autoregressive import AutoregressiveFactory
from lit_vae.objectives import Objective
from lit_vae.ranges import NotNegativeInt, PositiveInt, checked


class HierarchicalPixelVAE(WithPixelDecoder, HierarchicalVAE):
    """``p(x|z) = prod_i p(x_i | x_<i, f(z))`` where z is a hierarchy; in the paper a vector and a map.

    With `lit_vae.hierarchies.VectorAndMap` the prior of the map is autoregressive, too. The vector then holds what is
    global, the map the layout, and the decoder adds the texture. See `HierarchicalVAE` for what u is.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        latent_shapes: of the levels, from the top: ``[d]`` and ``[channels, height, width]`` for a vector and a map.
        hierarchy: the wiring and its networks, `lit_vae.hierarchies.VectorAndMap` or another.
        network: an autoregressive network of the pixels, conditioned on ``f(z)``; a smaller receptive field leaves
            more to the latents.
        likelihood: ``p(x_i | x_<i, z)``.
        objective: the bound, such as `ELBO` (beta, free bits) or `IWAE`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        features: channels of ``f(z)``.
        num_classes: number of labels that the networks of the hierarchy see; 0: labels are ignored.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        latent_shapes: list[list[PositiveInt]],
        hierarchy: HierarchyFactory,
        network: AutoregressiveFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        features: PositiveInt = 32,
        num_classes: NotNegativeInt = 0,
    ) -> None:
        self.decoder_channels = features
        super().__init__(
            image_shape, latent_shapes, hierarchy, likelihood, objective, optimizer, lr_scheduler, num_classes
        )
        self.add_network(network)
