"""Sums by group of images, for the replicates of `lit_vae.intervals`."""

import torch
from torch import Tensor

from lit_vae.intervals import GROUPS


def sums_by_group(values: Tensor, index: Tensor | None, groups: int = GROUPS) -> Tensor:
    """Sums over the images of each group: ``values (n, *shape), index (n,) -> (groups, *shape)`` float64.

    Image i of the split is in group ``i mod groups``. Without ``index``, the positions in the split, all is in the
    first group.
    """
    whose = torch.zeros(len(values), dtype=torch.int64, device=values.device) if index is None else index % groups
    exact = values.detach().double()
    return exact.new_zeros(groups, *exact.shape[1:]).index_add_(0, whose, exact)


def without_each(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and counts of all images, and of all but each group: ``(G, *shape), (G,) -> (1 + G, *shape), (1 + G,)``.

    Only the first row if there is one group, or one has no images.
    """
    total, number = sums.sum(0, keepdim=True), counts.sum(0, keepdim=True)
    if len(counts) == 1 or not (counts > 0).all():
        return total, number
    return torch.cat([total, total - sums]), torch.cat([number, number - counts])
