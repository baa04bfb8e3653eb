"""How far a set of generated images is from a set of real ones: small components that take two `FeatureSet`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_vae.metrics.feature_sets import FeatureSet
from lit_vae.metrics.frechet import frechet_distance
from lit_vae.ranges import PositiveInt, checked

CHUNK_ELEMENTS = 2**24
"""Entries of the largest matrix of pairs that is held at once: 128 MiB in float64."""


class SetDistance(ABC):
    """One or several numbers of two sets, all in float64. None depends on the order of the images."""

    kinds: tuple[str, ...]
    """What it measures, by the names that `ImageFeatures.called` is asked of."""

    needs_features: bool = False
    """Whether moments are not enough."""

    @abstractmethod
    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """The numbers by kind, such as ``fd``; not a number where an image was not."""

    def problems(self, num_images: int) -> list[str]:
        """Why sets of so many images cannot be compared, each with its remedy; empty if nothing keeps them from it."""
        return []


class Frechet(SetDistance):
    """``fd``: see `frechet_distance`; with Inception's features the FID. Lower is better.

    It is biased: it falls with the number of images, so compare equal numbers.
    """

    kinds = ("fd",)

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        return {"fd": frechet_distance(real, fake)}


class Kernel(SetDistance):
    """``kd``: squared maximum mean discrepancy with the kernel ``(x . y / d + 1)^3``; with Inception's the KID.

    Binkowski et al., "Demystifying MMD GANs", 2018, sec. 4. The unbiased estimate (eq. 4) from *all* pairs: it has the
    expectation of the usual mean over subsets of 1000, needs no random choice of them, and has less variance. Lower is
    better; around zero it can be negative. Not multiplied by 100 or 1000.
    """

    kinds = ("kd",)
    needs_features = True

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        x, y = _features(real), _features(fake)
        within = sum((_kernel_sum(a, a) - _kernel(a, a).sum()) / (len(a) * (len(a) - 1)) for a in (x, y))
        return {"kd": within - 2.0 * _kernel_sum(x, y) / (len(x) * len(y))}


class NeighbourDistance(SetDistance):
    """One that looks at balls around images, which reach to the k-th nearest of the others.

    A ball holds its surface: a generated image that copies a neighbour of a real one lies in that one's ball. What
    differs from the radius by no more than rounding lies on the surface.

    Args:
        neighbours: k.
    """

    needs_features = True

    @checked
    def __init__(self, neighbours: PositiveInt) -> None:
        self.neighbours = neighbours

    def problems(self, num_images: int) -> list[str]:
        """Too few others."""
        if num_images > self.neighbours:
            return []
        return [
            f"{type(self).__name__}: neighbours (={self.neighbours}) must be less than the number of images of a set"
            f" (={num_images}). Take more images, or fewer neighbours."
        ]

    def centered(self, real: FeatureSet, fake: FeatureSet) -> tuple[Tensor, Tensor]:
        """Features of both sets, ``(N, d)`` and ``(M, d)``, from one centre: squares are smaller and cancel less.

        With a centre for each set, the distance to a copy of a neighbour and the radius would round differently.
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
            )  # a twelfth of kthvalue's time
        return torch.cat(radii)


class PrecisionRecall(NeighbourDistance):
    """``precision``: share of the generated images within the manifold of real ones; ``recall`` the other way round.

    Kynkäänniemi et al., "Improved Precision and Recall Metric", 2019, eq. 1, there with features of VGG-16. The
    manifold of a set is all its balls. Both depend on the numbers of images: take as many real ones as generated.

    Args:
        neighbours: k.
    """

    kinds = ("precision", "recall")

    @checked
    def __init__(self, neighbours: PositiveInt = 3) -> None:
        super().__init__(neighbours)

    def __call__(self, real: FeatureSet, fake: FeatureSet) -> dict[str, Tensor]:
        """See `SetDistance`."""
        x, y = self.centered(real, fake)
        x_radii, y_radii = self.radii(x), self.radii(y)
        # rows of real images: whether a fake ball holds them, and which fake images their own balls hold
        recalled, precise = [], torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for rows, squares in _squared_distances(x, y, less=_rounding(x)):
            recalled.append((squares <= y_radii).any(1))
            precise |= (squares <= x_radii[rows, None]).any(0)
        return _unless_nan(x, y, {"precision": precise.double().mean(), "recall": torch.cat(recalled).double().mean()})


class DensityCoverage(NeighbourDistance):
    """``density``: mean number of real balls that a generated image lies in, over k; ``coverage``: share of real balls
    with a generated image in them.

    Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020, eqs. 5 and 7. Balls are of real
    images alone, so that one outlier among the generated ones counts for little. Density may exceed 1.

    Args:
        neighbours: k.
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
    """Not a number where a feature is none: a comparison with such a one is false, and shares would only be lower."""
    finite = bool(x.isfinite().all() and y.isfinite().all())
    return numbers if finite else {name: torch.full_like(value, torch.nan) for name, value in numbers.items()}


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Of rows with rows of the same index: ``(N, d), (N, d) -> (N,)``."""
    return ((x * y).sum(1) / x.shape[1] + 1.0).pow(3)


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Over all pairs: ``(N, d), (M, d) -> ()``."""
    rows = max(1, CHUNK_ELEMENTS // len(y))
    total = torch.zeros((), dtype=x.dtype, device=x.device)
    for chunk in x.split(rows):
        k = (chunk @ y.T).div_(x.shape[1]).add_(1.0)
        total += (k * k * k).sum()
    return total


def _squared_distances(x: Tensor, y: Tensor, less: float = 0.0) -> Iterator[tuple[slice, Tensor]]:
    """``|x_i - y_j|^2 - less (|x_i|^2 + |y_j|^2)`` of all pairs, at least 0, some rows ``(n, M)`` at a time."""
    lengths = y.square().sum(1)
    rows = max(1, CHUNK_ELEMENTS // len(y))
    for start in range(0, len(x), rows):
        chunk = x[start : start + rows]
        squares = (1.0 - less) * (chunk.square().sum(1, keepdim=True) + lengths) - 2.0 * chunk @ y.T
        yield slice(start, start + len(chunk)), squares.clamp(min=0.0)


def _rounding(x: Tensor) -> float:
    """How far apart two equal distances come out at most, in units of ``|x|^2 + |y|^2``: ``4 (d + 3) eps``.

    A product of matrices rounds by its sizes and by the place of a row in it.
    """
    return 4.0 * (x.shape[1] + 3) * torch.finfo(x.dtype).eps
