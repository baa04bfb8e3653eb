"""A set of images as the features of all of them: what distances between sets are made of."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class FeatureSet(NamedTuple):
    """Features of N images, d each, and their moments; all in float64."""

    num_images: int
    """N."""

    mean: Tensor
    """``(d,)``."""

    covariance: Tensor
    """``(d, d)``, with N - 1."""

    features: Tensor | None = None
    """``(n, d)`` of all images, or of some, where they were kept; in no particular order."""


class FeatureStatistics(Metric):
    """Collects the features of a set over batches and ranks.

    Sums and products are added up in float64 and reduced over the ranks before any mean or covariance is taken of them:
    the covariance is that of all images, not a mean of the ranks' own.

    Args:
        num_features: d.
        keep: also keep the features themselves, ``d`` numbers in float64 for each image.
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
        """Take in no image: what a rank does that has none, since every rank must have taken in something."""
        self.update(self.sums.new_zeros(0, len(self.sums)))

    def update(self, features: Tensor) -> None:
        """Take in features ``(B, d)`` of a batch."""
        exact = features.detach().double()
        self.count += len(exact)
        self.sums += exact.sum(0)
        self.products += exact.T @ exact
        if self.keep:
            self.features.append(exact)

    def compute(self) -> FeatureSet:
        """The set over all ranks; the same on each.

        Raises:
            ValueError: of fewer than two images there is no covariance.
        """
        count = int(self.count)
        if count < 2:
            raise ValueError(f"FeatureStatistics: a set of {count} images has no covariance. Give it two at least.")
        mean = self.sums / count
        covariance = (self.products - count * torch.outer(mean, mean)) / (count - 1)
        return FeatureSet(count, mean, covariance, dim_zero_cat(self.features) if self.keep else None)
