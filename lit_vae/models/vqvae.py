"""The vector-quantised autoencoder: van den Oord et al., "Neural Discrete Representation Learning", 2017."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.discrete import DiscreteAutoencoder
from lit_vae.quantizers import Quantized, Quantizer
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism


class VQVAE(DiscreteAutoencoder):
    """Encoder, nearest codes, decoder: ``-log p(x | e) + ||sg(z_e) - e||^2 + beta ||z_e - sg(e)||^2`` (eq. 3).

    All three are sums over an image. Published weights are often for *means*. With ``D`` values in an image, ``n``
    codes of ``d`` dimensions and a Gaussian of variance ``v``, ``MSE / v' + beta mean ||z_e - e||^2`` is this loss up
    to a factor, with ``v = v' / 2`` and ``commitment_cost = beta D / (n d)``.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        grid: ``[height, width]`` of the map of codes.
        quantizer: maps vectors to codes; sets their number and dimension.
        encoder: network from image to ``(embedding_dim, *grid)``.
        decoder: network from there to the likelihood's parameters.
        likelihood: ``p(x | codes)``.
        optimizer: over all parameters (an `EMACodebook` has none).
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms (with both, this is VQGAN); null: none.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        grid: list[PositiveInt],
        quantizer: Quantizer,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        super().__init__(image_shape, [grid], [quantizer], decoder, likelihood, optimizer, lr_scheduler, realism)
        self.encoder = encoder(self.image_shape, self.latent_shape, 0)

    def quantize(self, x: Tensor) -> list[Quantized]:
        """``e = Quantize(E(x))``, eq. 1 and 2."""
        z_e = self.encoder(x, None)
        return [self.quantizers[0](z_e)]
