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
from typing import NamedTuple

GROUPS = 20
T_QUANTILE = 2.0930
"""The 97.5 % quantile of Student's t with `GROUPS` - 1 degrees of freedom."""


class Estimate(NamedTuple):
    """A number, and half of its 95 % interval."""

    value: float
    half_width: float

    @property
    def is_certain(self) -> bool:
        """Whether zero lies outside of the interval."""
        return abs(self.value) > self.half_width


def standard_error(replicates: Sequence[float]) -> float:
    """The standard error of a number: see above.

    >>> standard_error([1.0, 2.0, 3.0])  # of a mean: that of the groups' means
    1.1547005383792515
    """
    return math.sqrt((len(replicates) - 1) / len(replicates) * _squares(replicates))


def half_width(replicates: Sequence[float]) -> float:
    """Half of the 95 % interval around a number with `GROUPS` replicates."""
    return T_QUANTILE * standard_error(replicates)


def over_repetitions(values: Sequence[float]) -> Estimate:
    """The mean of independent repetitions, such as trainings with other seeds, with Student's interval.

    >>> mean, half_width = over_repetitions([1.0, 2.0, 3.0])
    >>> mean, round(half_width, 4)
    (2.0, 2.4841)
    """
    from scipy.stats import t  # half a second, for few

    n = len(values)
    mean = math.fsum(values) / n
    variance = _squares(values) / (n - 1)
    return Estimate(mean, float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n))


def _squares(values: Sequence[float]) -> float:
    """The sum of squares around the mean. Of equal values it is 0, and not what rounding leaves of it."""
    shifted = [value - values[0] for value in values]
    mean = math.fsum(shifted) / len(shifted)
    return math.fsum((value - mean) ** 2 for value in shifted)
