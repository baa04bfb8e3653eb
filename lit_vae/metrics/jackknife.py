"""Standard errors of the numbers of a split, by the delete-a-group jackknife.

The images of a split are in `GROUPS` groups: image i in group ``i mod GROUPS``. A number is computed from all images,
and again without each group: its *replicates* ``t_1 ... t_G``. Then, for a mean, a ratio of means or a distance of
Gaussians alike::

    se^2 = (G - 1) / G  sum_g (t_g - mean t)^2

Tukey, "Bias and confidence in not-quite large samples", 1958; Kott, "The delete-a-group jackknife", 2001. Two models
that see the same images are compared by the replicates of their *difference*: what is hard for both cancels. The error
is that of the images alone, not that of another training.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

GROUPS = 20
T_QUANTILE = 2.0930
"""The 97.5 % quantile of Student's t with `GROUPS` - 1 degrees of freedom."""


def sums_by_group(values: Tensor, index: Tensor | None) -> Tensor:
    """Sums over the images of each group: ``values (n, *shape), index (n,) -> (GROUPS, *shape)`` float64.

    Args:
        values: one row for each image, or rows of sums over images.
        index: positions of the images in the split; None: unknown, so that all is in the first group.
    """
    groups = torch.zeros(len(values), dtype=torch.int64, device=values.device) if index is None else index % GROUPS
    exact = values.detach().double()
    return exact.new_zeros(GROUPS, *exact.shape[1:]).index_add_(0, groups, exact)


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


def standard_error(replicates: Sequence[float]) -> float:
    """The standard error of a number: see above.

    >>> standard_error([1.0, 2.0, 3.0])  # of a mean: that of the groups' means
    1.1547005383792515
    """
    mean = math.fsum(replicates) / len(replicates)
    return math.sqrt((len(replicates) - 1) / len(replicates) * math.fsum((t - mean) ** 2 for t in replicates))


def half_width(replicates: Sequence[float]) -> float:
    """Half of the 95 % interval around a number with `GROUPS` replicates."""
    return T_QUANTILE * standard_error(replicates)
