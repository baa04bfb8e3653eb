"""Free bits: nats of the rate that the loss does not push down, by dimension or by level."""

import torch
from torch import Tensor

from lit_vae.images import Shape
from lit_vae.objectives.level import Level
from lit_vae.ranges import PositiveFloat, checked
from lit_vae.ranks import average_over_ranks


class FreeBits:
    """The loss does not push the KL of a latent dimension, averaged over the batch, below ``nats``.

    Kingma et al., "Improved Variational Inference with Inverse Autoregressive Flow", 2016, eq. 15: a dimension counts
    ``max(nats, mean over the batch of its KL)``. The terms stay per image; their batch mean is the equation. In a
    distributed run the mean is over all ranks.

    Args:
        nats: free nats of each dimension.
    """

    @checked
    def __init__(self, nats: PositiveFloat) -> None:
        self.nats = nats

    per_dim: bool = True
    """Whether it needs the KL of each dimension, which only Gaussians have in closed form."""

    def shape(self, latent_shape: Shape) -> Shape:
        """Shape of what `of` returns for an image."""
        return latent_shape

    def of(self, level: Level) -> Tensor:
        """What is compared with ``nats``, ``(B, *shape)``: here the KL of each dimension."""
        return level.kl_per_dim()

    def nats_of(self, index: int) -> float:
        """Free nats in a level, counted from the top."""
        return self.nats

    def paid(self, kl: Tensor, index: int = 0) -> Tensor:
        """The rate of a level in the loss, from `of`: ``(B, *shape) -> (B,)``. All ranks must call it together."""
        kl, free = kl.flatten(1), self.nats_of(index)
        mean = average_over_ranks(kl.mean(0))
        return torch.where(mean > free, kl, free).sum(1)

    def missing(self, mean_kl: Tensor, index: int = 0) -> Tensor:
        """Nats by which the mean of `of` over a split, ``(*shape)``, falls short of the free bits: ``-> ()``."""
        return (self.nats_of(index) - mean_kl).clamp_min(0.0).sum()

    def problems(self, num_levels: int) -> list[str]:
        """Reasons why it does not fit a model with ``num_levels`` levels; empty if it does."""
        return []


class FreeBitsPerLevel(FreeBits):
    """`FreeBits` of each level of a hierarchy instead of each dimension.

    Args:
        nats: free nats of every level, or one number for each level, from the top.
    """

    per_dim = False

    @checked
    def __init__(self, nats: PositiveFloat | list[PositiveFloat]) -> None:
        self.of_each = nats

    def nats_of(self, index: int) -> float:
        """Free nats of a level."""
        return self.of_each[index] if isinstance(self.of_each, list) else self.of_each

    def problems(self, num_levels: int) -> list[str]:
        """A number of levels other than the model's."""
        if not isinstance(self.of_each, list) or len(self.of_each) == num_levels:
            return []
        return [
            f"FreeBitsPerLevel: nats (={self.of_each}) must be one number, or one for each of the {num_levels} levels,"
            " from the top. Set model.init_args.objective.init_args.free_bits.init_args.nats."
        ]

    def shape(self, latent_shape: Shape) -> Shape:
        """One number."""
        return (1,)

    def of(self, level: Level) -> Tensor:
        """The rate of the whole level, ``(B, 1)``."""
        return level.rate()[:, None]
