"""Features of a set of images, for distances between sets."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_vae.intervals import GROUPS
from lit_vae.metrics.jackknife import without_each

MOST_IN_GROUPS = 256
"""Features up to this length are summed by group of images, too: with those of Inception, 20 x 32 MB would be kept."""


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

    without_each: "tuple[FeatureSet, ...]" = ()
    """The set without each group of images, see `lit_vae.intervals`; empty if that is not known."""


class FeatureStatistics(Metric):
    """Collects the features of a set over batches and ranks.

    Sums and products are in float64 and reduced over the ranks first, so the covariance is that of all images, not a
    mean over ranks. With ``keep`` it also keeps the features, d float64 numbers per image.
    """

    full_state_update = False
    counts: Tensor
    sums: Tensor
    products: Tensor
    features: list[Tensor]

    def __init__(self, num_features: int, keep: bool = False) -> None:
        super().__init__()
        self.keep = keep
        groups = GROUPS if num_features <= MOST_IN_GROUPS else 1
        for name, shape in {"counts": (), "sums": (num_features,), "products": (num_features, num_features)}.items():
            self.add_state(name, torch.zeros(groups, *shape, dtype=torch.float64), dist_reduce_fx="sum")
        if keep:
            self.add_state("features", default=[], dist_reduce_fx="cat")

    def update_with_none(self) -> None:
        """Update with no images, for ranks without images: every rank must update at least once."""
        self.update(self.sums.new_zeros(0, self.sums.shape[1]))

    def update(self, features: Tensor, index: Tensor | None = None) -> None:
        """Add the features ``(B, d)`` of a batch, of images at the positions ``index (B,)`` of the split if known."""
        exact = features.detach().double()
        groups = len(self.counts) if index is not None else 1
        for group in range(groups):
            part = exact if groups == 1 or index is None else exact[index % groups == group]
            self.counts[group] += len(part)
            self.sums[group] += part.sum(0)
            self.products[group] += part.T @ part
        if self.keep:
            self.features.append(exact)

    def compute(self) -> FeatureSet:
        """The set over all ranks, equal on each.

        Raises:
            ValueError: there are fewer than two images, which have no covariance.
        """
        count = int(self.counts.sum())
        if count < 2:
            raise ValueError(f"FeatureStatistics: a set of {count} images has no covariance. Give at least two.")
        sums, numbers = without_each(self.sums, self.counts)
        products, _ = without_each(self.products, self.counts)
        whole, *without = map(_moments, numbers, sums, products)
        kept = dim_zero_cat(self.features) if self.keep else None
        return whole._replace(features=kept, without_each=tuple(without))


def _moments(number: Tensor, sums: Tensor, products: Tensor) -> FeatureSet:
    count, mean = int(number), sums / number
    return FeatureSet(count, mean, (products - count * torch.outer(mean, mean)) / (count - 1))
