"""Balance of the levels of a hierarchy while the weight of the rate rises."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from lit_vae.images import Shape
from lit_vae.ranks import average_over_ranks

LEAST = 0.01
"""Nats that are added to each rate, so that a level without any keeps a weight (the value of NVAE's code)."""


class KLBalance:
    """During warm-up, a level with a small rate for its size is pushed less, so that no level dies early.

    Vahdat and Kautz, "NVAE", 2020, appendix A: the weights are ``g_l = c (mean |KL_l| + 0.01) / a_l``, without gradient
    and with mean 1. The mean is over the batch: a rate from draws may be negative for an image. ``a_l`` is the number
    of positions of the level's grid, divided by the number of levels on it.
    """

    def weights(self, rates: Sequence[Tensor], latent_shapes: Sequence[Shape]) -> Tensor:
        """Weights of the levels, ``(levels,)``, from their rates ``(B,)``. All ranks must call it together."""
        grids = [shape[1:] for shape in latent_shapes]
        sizes = [prod(grid) / grids.count(grid) for grid in grids]
        means = average_over_ranks(torch.stack([rate.detach().abs().mean() for rate in rates]))
        weights = torch.stack([(m + LEAST) / size for m, size in zip(means.unbind(), sizes, strict=True)])
        return weights / weights.mean()
