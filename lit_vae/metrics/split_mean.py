"""Means over the images of a split."""

import torch
from torch import Tensor
from torchmetrics import Metric


class SplitMean(Metric):
    """Mean of a tensor over all images of all ranks, in float64; NaN if any value is NaN.

    Args:
        shape: shape of the tensor.

    >>> mean = SplitMean()
    >>> mean.update(torch.tensor([1.0, 2.0]), 2)
    >>> mean.update(torch.tensor([6.0]), 1)  # a batch of another size counts by its images
    >>> mean.compute()
    tensor(3., dtype=torch.float64)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor, num_images: int) -> None:
        """Add ``values (n, *shape)`` whose sum is the sum over ``num_images`` images: one row per image, or sums."""
        self.total += values.detach().double().sum(0)
        self.count += num_images

    def compute(self) -> Tensor:
        """The mean, ``(*shape)``."""
        return self.total / self.count
