"""Features of a set of images, for distances between sets."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class FeatureSet(NamedTuple):
    """Moments of the features ``(N, d)`` of N images, and optionally the features; all in float64."""

    num_images: int
    """Number N of images."""

    mean: Tensor
    """``(d,)``."""

    covariance: Tensor
    """``(d, d)``, with the divisor N - 1."""

    features: Tensor | None = None
    """Features ``(n, d)`` of all or some images, if kept; in any order."""


class FeatureStatistics(Metric):
    """Collects the features of a set over batches and ranks.

    Sums and products are in float64 and reduced over the ranks first, so the covariance is that of all images, not a
    mean over ranks.

    Args:
        num_features: length d of the features.
        keep: also keep the features, d float64 numbers per image.
    """

    full_state_update = False
    count: Tensor
    sums: Tensor
    products: Tensor
    features: list[Tensor]

    def __init__(self, num_features: int, keep: bool = False) -> None:
        super().__init__()
        self.keep = keep
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(num_features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("products", torch.zeros(num_features, num_features, dtype=torch.float64), dist_reduce_fx="sum")
        if keep:
            self.add_state("features", default=[], dist_reduce_fx="cat")

    def update_with_none(self) -> None:
        """Update with no images, for ranks without images: every rank must update at least once."""
        self.update(self.sums.new_zeros(0, len(self.sums)))

    def update(self, features: Tensor) -> None:
        """Add the features ``(B, d)`` of a batch."""
        exact = features.detach().double()
        self.count += len(exact)
        self.sums += exact.sum(0)
        self.products += exact.T @ exact
        if self.keep:
            self.features.append(exact)

    def compute(self) -> FeatureSet:
        """The set over all ranks, equal on each.

        Raises:
            ValueError: there are fewer than two images, which have no covariance.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"FeatureStatistics: a set of {count} images has no covariance. Give at least two.")
        mean = self.sums / count
        covariance = (self.products - count * torch.outer(mean, mean)) / (count - 1)
        return FeatureSet(count, mean, covariance, dim_zero_cat(self.features) if self.keep else None)
