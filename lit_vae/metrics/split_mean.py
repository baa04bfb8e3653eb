"""Means over the images of a split."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_vae.metrics.jackknife import GROUPS, sums_by_group, without_each


class SplitMean(Metric):
    """Mean of a tensor over all images of all ranks, in float64; NaN if any value is NaN.

    If the positions of the images are known, and each group of `lit_vae.metrics.jackknife` has some, `estimates` has
    the mean without each group, too.

    Args:
        shape: shape of the tensor.

    >>> mean = SplitMean()
    >>> mean.update(torch.tensor([1.0, 2.0]), 2)
    >>> mean.update(torch.tensor([6.0]), 1)  # a batch of another size counts by its images
    >>> mean.estimates()
    tensor([3.], dtype=torch.float64)
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(GROUPS, *shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(GROUPS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor, num_images: int, index: Tensor | None = None) -> None:
        """Add ``values (n, *shape)`` whose sum is the sum over ``num_images`` images: one row per image, or sums.

        Args:
            values: the rows.
            num_images: the number of images.
            index: positions ``(n,)`` of the images in the split, for rows per image.
        """
        self.sums += sums_by_group(values, index)
        share = values.new_full((len(values),), num_images / max(len(values), 1), dtype=torch.float64)
        self.counts += sums_by_group(share, index)

    def estimates(self) -> Tensor:
        """The mean, and that without each group: ``(1 + GROUPS, *shape)``, or ``(1, *shape)`` if that is not known."""
        return self.compute().reshape(-1, *self.sums.shape[1:])  # torchmetrics removes the sides of a single value

    def compute(self) -> Tensor:
        """See `estimates`."""
        sums, counts = without_each(self.sums, self.counts)
        return sums / counts.view(-1, *[1] * (sums.ndim - 1))
