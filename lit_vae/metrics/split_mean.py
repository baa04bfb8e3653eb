"""Means over the images of a split."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_vae.images import Shape
from lit_vae.intervals import GROUPS
from lit_vae.metrics.jackknife import sums_by_group, without_each


class SplitMean(Metric):
    """Mean of a tensor over all images of all ranks, in float64; NaN if any value is NaN.

    If the positions of the images are known, and each group of `lit_vae.intervals` has some, `estimates` has
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

        ``index (n,)``: positions of the images in the split, for rows per image.
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


class TermMeans(nn.Module):
    """Means over a split of the terms of an evaluation, and of tensors that may be sums over a batch (``of_batch``)."""

    def __init__(self, names: Iterable[str], of_batch: Mapping[str, Shape]) -> None:
        super().__init__()
        self.of_batch = frozenset(of_batch)
        shapes = {**dict.fromkeys(names, ()), **of_batch}
        self.means = nn.ModuleDict({name: SplitMean(shape) for name, shape in shapes.items()})

    def update(self, terms: Mapping[str, Tensor], index: Tensor) -> None:
        """Add all terms of a batch, of images at the positions ``index (B,)`` of the split."""
        for name, value in terms.items():
            self.means[name].update(value, len(index), None if name in self.of_batch else index)  # type: ignore[operator]

    def take(self) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """The means of the terms, over all images and without each group; those of the tensors of a batch. Resets."""
        rows = {name: mean.estimates() for name, mean in self.means.items()}  # type: ignore[operator]
        for mean in self.means.values():
            mean.reset()  # type: ignore[operator]
        of_batch = {name: rows.pop(name)[0] for name in self.of_batch}
        return [{name: row[i] for name, row in rows.items()} for i in range(min(map(len, rows.values())))], of_batch
