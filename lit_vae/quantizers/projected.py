"""A quantizer in fewer dimensions than the latents."""

from torch import Tensor, nn

from lit_vae.quantizers.base import Quantized, Quantizer
from lit_vae.ranges import PositiveInt, checked


class Projected(Quantizer):
    """Linear maps at each position to the inner quantizer's channels and back.

    Yu et al., "Vector-quantized Image Modeling with Improved VQGAN", 2022, sec. 3.2 ("factorized codes"): in fewer
    dimensions more of the codes are used.

    Args:
        quantizer: quantizes the low-dimensional vectors; losses and codes come from it.
        embedding_dim: number of input and output channels.
    """

    @checked
    def __init__(self, quantizer: Quantizer, embedding_dim: PositiveInt) -> None:
        super().__init__(quantizer.num_embeddings, embedding_dim)
        self.down = nn.Linear(embedding_dim, quantizer.embedding_dim)
        self.quantizer = quantizer
        self.up = nn.Linear(quantizer.embedding_dim, embedding_dim)

    def forward(self, z_e: Tensor) -> Quantized:
        """See `Quantizer`."""
        self._check_channels(z_e)
        quantized: Quantized = self.quantizer(_by_position(self.down, z_e))
        return quantized._replace(z_q=_by_position(self.up, quantized.z_q).to(z_e.dtype))

    def update(self, *sums: Tensor) -> None:
        """The inner quantizer's."""
        self.quantizer.update(*sums)

    def lookup(self, indices: Tensor) -> Tensor:
        """See `Quantizer`."""
        return _by_position(self.up, self.quantizer.lookup(indices))

    @property
    def batch_terms(self) -> dict[str, tuple[int, ...]]:
        """The inner quantizer's."""
        return self.quantizer.batch_terms

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """The inner quantizer's."""
        return self.quantizer.batch_loss(means)

    def scalars(self) -> dict[str, float]:
        """The inner quantizer's."""
        return self.quantizer.scalars()


def _by_position(layer: nn.Module, z: Tensor) -> Tensor:
    mapped: Tensor = layer(z.movedim(1, -1))
    return mapped.movedim(-1, 1)
