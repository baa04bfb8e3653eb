"""Use of the dimensions of each level of a hierarchy."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_vae.metrics.latents import ACTIVE_THRESHOLD


class LevelUse(Metric):
    """Mean KL and variance of the posterior mean of each dimension of each level, over batches and ranks.

    It keeps three numbers for each dimension, so a hierarchy may have as many as it likes.
    """

    full_state_update = False
    count: Tensor

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.num_levels = len(sizes)
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for level, size in enumerate(sizes):
            self.add_state(f"sums_{level}", torch.zeros(3, size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, kls: Sequence[Tensor], means: Sequence[Tensor]) -> None:
        """Add KLs and posterior means in units of the prior: ``(B, size)`` for each level."""
        self.count += len(kls[0])
        for level, (kl, mean) in enumerate(zip(kls, means, strict=True)):
            kl, mean = kl.double(), mean.double()  # noqa: PLW2901
            sums = getattr(self, f"sums_{level}")
            sums += torch.stack([kl.sum(0), mean.sum(0), mean.square().sum(0)])

    def compute(self) -> list[tuple[Tensor, Tensor]]:
        """For each level: mean KL ``(size,)`` in nats, and the number of active units (Burda et al. 2016)."""
        use = []
        for level in range(self.num_levels):
            kl, mean, square = getattr(self, f"sums_{level}") / self.count
            use.append((kl, (square - mean.square() > ACTIVE_THRESHOLD).sum()))
        return use
