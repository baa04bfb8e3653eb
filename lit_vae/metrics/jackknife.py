"""Sums by group of images, for the replicates of `lit_vae.intervals`."""

import torch
from torch import Tensor

from lit_vae.intervals import GROUPS


def sums_by_group(values: Tensor, index: Tensor | None, groups: int = GROUPS) -> Tensor:
    """Sums over the images of each group: ``values (n, *shape), index (n,) -> (groups, *shape)`` float64.

    Args:
        values: one row for each image, or rows of sums over images.
        index: positions of the images in the split; None: unknown, so that all is in the first group.
        groups: number of groups; image i is in group ``i mod groups``.
    """
    whose = torch.zeros(len(values), dtype=torch.int64, device=values.device) if index is None else index % groups
    exact = values.detach().double()
    return exact.new_zeros(groups, *exact.shape[1:]).index_add_(0, whose, exact)


def without_each(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums and counts of all images, and of all but each group.

    Args:
        sums: of each of G groups, ``(G, *shape)``.
        counts: numbers of images of each group, ``(G,)``.

    Returns:
        ``(1 + G, *shape)`` and ``(1 + G,)``; only the first row if there is one group, or one has no images.
    """
    total, number = sums.sum(0, keepdim=True), counts.sum(0, keepdim=True)
    if len(counts) == 1 or not (counts > 0).all():
        return total, number
    return torch.cat([total, total - sums]), torch.cat([number, number - counts])
