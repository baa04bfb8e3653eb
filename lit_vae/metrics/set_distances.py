"""Distances between sets of generated and real images, from two `FeatureSet`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_vae.metrics.feature_sets import FeatureSet
from lit_vae.metrics.frechet import frechet_distance
from lit_vae.ranges import PositiveInt, checked

CHUNK_ELEMENTS = 2**24
"""Entries of the largest matrix of pairs in memory: 128 MiB in float64."""


class SetDistance(ABC):
    """One or several numbers for two sets, in float64 and independent of the order of the images."""

    kinds: tuple[str, ...]
    """Kinds of its numbers, such as ``fd``; `ImageFeatures.called` makes their names in logs."""

    needs_features: bool = False
    """Whether it needs features, not only moments."""

    @abstractmethod
    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """The numbers by kind, such as ``fd``; NaN if an image was not finite."""

    def problems(self, num_images: int) -> list[str]:
        """Problems with sets of ``num_images`` images, one message each; empty if there are none."""
        return []


class Frechet(SetDistance):
    """``fd``: see `frechet_distance`; with Inception's features the FID. Lower is better.

    It is biased: it falls with the number of images, so compare equal numbers of images.
    """

    kinds = ("fd",)

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        return {"fd": frechet_distance(real, fake)}


class Kernel(SetDistance):
    """``kd``: squared maximum mean discrepancy with the kernel ``(x . y / d + 1)^3``; with Inception's the KID.

    Binkowski et al., "Demystifying MMD GANs", 2018, sec. 4. The unbiased estimate (eq. 4) from *all* pairs. It has the
    same expectation as the usual mean over random subsets of 1000, with less variance. Lower is better; near zero it
    can be negative. It is not multiplied by 100 or 1000.
    """

    kinds = ("kd",)
    needs_features = True

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        x, y = _features(real), _features(fake)
        within = sum((_kernel_sum(a, a) - _kernel(a, a).sum()) / (len(a) * (len(a) - 1)) for a in (x, y))
        return {"kd": within - 2.0 * _kernel_sum(x, y) / (len(x) * len(y))}


class NeighbourDistance(SetDistance):
    """A distance that uses a ball around each image, up to its k-th nearest neighbour in the same set.

    A ball includes its surface, with a tolerance for rounding: a copy of the k-th neighbour lies in the ball.

    Args:
        neighbours: number k of neighbours.
    """

    needs_features = True

    @checked
    def __init__(self, neighbours: PositiveInt) -> None:
        self.neighbours = neighbours

    def problems(self, num_images: int) -> list[str]:
        """Too few images."""
        if num_images > self.neighbours:
            return []
        return [
            f"{type(self).__name__}: neighbours (={self.neighbours}) must be less than the number of images of a set"
            f" (={num_images}). Take more images, or fewer neighbours."
        ]

    def centered(self, real: FeatureSet, fake: FeatureSet) -> tuple[Tensor, Tensor]:
        """Features of both sets, ``(N, d)`` and ``(M, d)``, relative to one centre: smaller squares lose fewer digits.

        With one centre per set, the distance to a copy of a neighbour and the radius would round differently.
        """
        x, y = _features(real), _features(fake)
        center = x.mean(0)
        return x - center, y - center

    def radii(self, x: Tensor) -> Tensor:
        """Squared distance of each row to the k-th nearest of the *other* rows: ``(N, d) -> (N,)``."""
        if problems := self.problems(len(x)):
            raise ValueError(problems[0])
        radii = []
        for rows, squares in _squared_distances(x, x):
            own = torch.arange(rows.start, rows.stop, device=x.device)
            squares[own - rows.start, own] = torch.inf
            radii.append(
                squares.topk(self.neighbours, dim=1, largest=False).values[:, -1]
            )  # 12 times as fast as kthvalue
        return torch.cat(radii)


class PrecisionRecall(NeighbourDistance):
    """``precision``: share of generated images in the manifold of the real images; ``recall``: the reverse.

    Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, eq. 1 (with features of VGG-16). The manifold of
    a set is the union of its balls. Both depend on the numbers of images: take equally many real and generated images.

    Args:
        neighbours: number k of neighbours.
    """

    kinds = ("precision", "recall")

    @checked
    def __init__(self, neighbours: PositiveInt = 3) -> None:
        super().__init__(neighbours)

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        x, y = self.centered(real, fake)
        x_radii, y_radii = self.radii(x), self.radii(y)
        # for chunks of real images: are they in a fake ball, and which fake images are in their balls
        recalled, precise = [], torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for rows, squares in _squared_distances(x, y, less=_rounding(x)):
            recalled.append((squares <= y_radii).any(1))
            precise |= (squares <= x_radii[rows, None]).any(0)
        return _unless_nan(x, y, {"precision": precise.double().mean(), "recall": torch.cat(recalled).double().mean()})


class DensityCoverage(NeighbourDistance):
    """``density``: mean number of real balls around a generated image, divided by k; ``coverage``: share of real balls
    that hold a generated image.

    Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, eqs. 5 and 7. Only real images
    have balls, so generated outliers matter little. Density may exceed 1.

    Args:
        neighbours: number k of neighbours.
    """

    kinds = ("density", "coverage")

    @checked
    def __init__(self, neighbours: PositiveInt = 5) -> None:
        super().__init__(neighbours)

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        x, y = self.centered(real, fake)
        radii = self.radii(x)
        held, covered = torch.zeros((), dtype=torch.float64, device=x.device), []
        for rows, squares in _squared_distances(x, y, less=_rounding(x)):
            within = squares <= radii[rows, None]
            held += within.sum()
            covered.append(within.any(1))
        coverage = torch.cat(covered).double().mean()
        return _unless_nan(x, y, {"density": held / (self.neighbours * len(y)), "coverage": coverage})


def _features(of: FeatureSet) -> Tensor:
    assert of.features is not None  # by `SetDistance.needs_features`
    return of.features


def _unless_nan(x: Tensor, y: Tensor, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """NaN if a feature is not finite: comparisons with NaN are false, which would only lower the shares."""
    finite = bool(x.isfinite().all() and y.isfinite().all())
    return numbers if finite else {name: torch.full_like(value, torch.nan) for name, value in numbers.items()}


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Kernel of rows with the same index: ``(N, d), (N, d) -> (N,)``."""
    return ((x * y).sum(1) / x.shape[1] + 1.0).pow(3)


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs: ``(N, d), (M, d) -> ()``."""
    rows = max(1, CHUNK_ELEMENTS // len(y))
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for chunk in x.split(rows):
        k = (chunk @ y.T).div_(x.shape[1]).add_(1.0)
        total += (k * k * k).sum()
    return total


def _squared_distances(x: Tensor, y: Tensor, less: float = 0.0) -> Iterator[tuple[slice, Tensor]]:
    """``|x_i - y_j|^2 - less (|x_i|^2 + |y_j|^2)`` of all pairs, at least 0, in chunks of rows ``(n, M)``."""
    lengths = y.square().sum(1)
    rows = max(1, CHUNK_ELEMENTS // len(y))
    for start in range(0, len(x), rows):
        chunk = x[start : start + rows]
        squares = (1.0 - less) * (chunk.square().sum(1, keepdim=True) + lengths) - 2.0 * chunk @ y.T
        yield slice(start, start + len(chunk)), squares.clamp(min=0.0)


def _rounding(x: Tensor) -> float:
    """Largest rounding difference of two equal distances, in units of ``|x|^2 + |y|^2``: ``4 (d + 3) eps``.

    The rounding of a matrix product depends on its sizes and on the position of a row.
    """
    return 4.0 * (x.shape[1] + 3) * torch.finfo(x.dtype).eps
