"""Codes on several grids: Razavi et al., "Generating Diverse High-Fidelity Images with VQ-VAE-2", 2019."""

from collections.abc import Callable, Sequence

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_vae.images import Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.discrete import DiscreteAutoencoder
from lit_vae.networks.vqvae import HierarchicalEncoder
from lit_vae.quantizers import Quantized, Quantizer
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism

HierarchyFactory = Callable[[Shape, Sequence[Shape]], HierarchicalEncoder]
"""``(in_shape, out_shapes) -> encoder``, coarsest level first."""


class VQVAE2(DiscreteAutoencoder):
    """Two or more levels of codes: global structure on the coarse grid, details on the fine grid.

    The loss is that of `lit_vae.models.VQVAE`, with the quantizers' terms of all levels.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        grids: ``[height, width]`` of each level's map of codes, the coarsest first.
        quantizers: one per level.
        encoder: `lit_vae.networks.HierarchicalEncoder`.
        decoder: network from the vectors of all levels, repeated to the finest grid, to the likelihood's parameters.
        likelihood: ``p(x | codes)``.
        optimizer: over all parameters (an `EMACodebook` has none).
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms (with both, this is VQGAN); null: none.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        grids: list[list[PositiveInt]],
        quantizers: list[Quantizer],
        encoder: HierarchyFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        super().__init__(image_shape, grids, quantizers, decoder, likelihood, optimizer, lr_scheduler, realism)
        shapes = [(q.embedding_dim, *grid) for q, grid in zip(quantizers, self.grids, strict=True)]
        self.encoder = encoder(self.image_shape, shapes)

    def quantize(self, x: Tensor) -> list[Quantized]:
        """Algorithm 1, lines 1 to 4: ``e_top = Q(E_top(x))``, ``e_bottom = Q(E_bottom(x, e_top))``."""
        features = self.encoder.features(x)
        levels: list[Quantized] = []
        for level, quantizer in enumerate(self.quantizers):
            z_e = self.encoder.latent(level, features, [above.z_q for above in levels])
            levels.append(quantizer(z_e))
        return levels
