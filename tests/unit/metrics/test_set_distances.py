"""Distances between sets against their definitions written plainly, and against other libraries."""

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.metric_prc import calculate_precision_recall_full
from torchmetrics.image.kid import KernelInceptionDistance

from lit_vae.metrics import DensityCoverage, FeatureStatistics, Frechet, Kernel, PrecisionRecall, set_distances


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def set_of(x):
    statistics = FeatureStatistics(x.shape[1], keep=True)
    statistics.update(x)
    return statistics.compute()


REAL, FAKE = randn(23, 6), 0.3 + 0.8 * randn(17, 6, seed=1)
ALL = [Frechet(), Kernel(), PrecisionRecall(), DensityCoverage()]


@pytest.fixture(params=[2**24, 50], ids=["at once", "in chunks"])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(set_distances, "CHUNK_ELEMENTS", request.param)


def measure(distance, real=REAL, fake=FAKE):
    return {name: float(value) for name, value in distance(set_of(real), set_of(fake)).items()}


@pytest.mark.usefixtures("_chunks")
def test_kernel_distance_is_eq_4_of_binkowski():
    x, y = REAL.numpy(), FAKE.numpy()

    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    m, n = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    xy = sum(k(a, b) for a in x for b in y) / (m * n)
    assert measure(Kernel()) == {"kd": pytest.approx(xx + yy - 2 * xy, rel=1e-10)}


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all")
def test_kernel_distance_is_the_mean_of_torchmetrics_subsets():
    """Of one subset of all images it is the very number."""

    class Flat(nn.Module):
        num_features = 6

        def forward(self, x):
            return x.flatten(1)

    x, y = REAL[:17].reshape(17, 1, 2, 3), FAKE.reshape(17, 1, 2, 3)
    theirs = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=17)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    assert measure(Kernel(), REAL[:17])["kd"] == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_kernel_distance_is_unbiased():
    """Its mean over many pairs of sets from one distribution is zero within three standard errors."""
    draws = torch.tensor([measure(Kernel(), randn(8, 4, seed=s), randn(8, 4, seed=s + 500))["kd"] for s in range(300)])
    assert abs(draws.mean()) < 3 * draws.std() / 300**0.5
    assert draws.min() < 0 < draws.max()


def radii(x, k):
    """Plainly: the distance to the k-th nearest other."""
    return np.array([np.sort(np.linalg.norm(np.delete(x, i, 0) - x[i], axis=1))[k - 1] for i in range(len(x))])


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_eq_1_of_kynkaanniemi(k):
    x, y = REAL.numpy(), FAKE.numpy()
    x_radii, y_radii = radii(x, k), radii(y, k)
    precision = np.mean([any(np.linalg.norm(b - a) <= r for a, r in zip(x, x_radii, strict=True)) for b in y])
    recall = np.mean([any(np.linalg.norm(a - b) <= r for b, r in zip(y, y_radii, strict=True)) for a in x])
    got = measure(PrecisionRecall(k))
    assert got == {"precision": pytest.approx(precision), "recall": pytest.approx(recall)}
    assert 0 < precision < 1
    assert 0 < recall < 1
    theirs = calculate_precision_recall_full(FAKE, REAL, k)
    assert got == {"precision": pytest.approx(theirs[0]), "recall": pytest.approx(theirs[1])}


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_are_those_of_naeem(k):
    x, y = REAL.numpy(), FAKE.numpy()
    within = np.linalg.norm(x[:, None] - y, axis=2) < radii(x, k)[:, None]
    got = measure(DensityCoverage(k))
    assert got == {
        "density": pytest.approx(within.sum() / (k * len(y))),
        "coverage": pytest.approx(within.any(1).mean()),
    }


@pytest.mark.parametrize("distance", ALL, ids=lambda distance: type(distance).__name__)
def test_the_order_of_images_changes_nothing(distance):
    assert measure(distance, REAL.flip(0), FAKE.roll(3, 0)) == pytest.approx(measure(distance), rel=1e-9)


def test_a_set_against_itself():
    assert measure(PrecisionRecall(), REAL, REAL) == {"precision": 1.0, "recall": 1.0}
    assert measure(DensityCoverage(), REAL, REAL)["coverage"] == 1.0
    assert measure(Frechet(), REAL, REAL)["fd"] < 1e-9


def test_sets_far_apart_share_nothing():
    far = FAKE + 1e3
    assert measure(PrecisionRecall(), REAL, far) == {"precision": 0.0, "recall": 0.0}
    assert measure(DensityCoverage(), REAL, far) == {"density": 0.0, "coverage": 0.0}
    assert measure(Kernel(), REAL, far)["kd"] > 1e6


def exact(x, y, k):
    """All four numbers of features that are whole numbers, with closed balls: nothing is rounded."""
    x, y = x.to(torch.int64).numpy(), y.to(torch.int64).numpy()

    def squares(a, b):
        return ((a[:, None] - b) ** 2).sum(2)

    def reach(a):
        return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(squares(a, a))])

    within, held = squares(x, y) <= reach(x)[:, None], squares(x, y) <= reach(y)
    return {
        "precision": within.any(0).mean(),
        "recall": held.any(1).mean(),
        "density": within.sum() / (k * len(y)),
        "coverage": within.any(1).mean(),
    }


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize(("d", "offset", "scale"), [(2, 0, 1 / 3), (300, 0, 1 / 3), (37, 10_000, 1 / 4)])
@pytest.mark.parametrize("kind", ["copies", "copies and a cloud far off", "doubles", "few levels"])
def test_equal_distances_are_equal(kind, d, offset, scale, k, monkeypatch):
    """Copies of training images lie on the surface of a neighbour's ball; thirds are rounded."""
    monkeypatch.setattr(set_distances, "CHUNK_ELEMENTS", 700)  # products of several sizes
    generator = torch.Generator().manual_seed(k + d)
    x = torch.randint(-50, 50, (60, d), generator=generator).double() + offset
    y = x[torch.randint(60, (40,), generator=generator)]
    if kind == "copies and a cloud far off":
        y = torch.cat([y, torch.randint(900, 1000, (40, d), generator=generator).double() + offset])
    if kind == "doubles":
        x = torch.cat([x, x[:30], x[:10]])
    if kind == "few levels":
        x, y = (((z - offset) / 50).round() + offset for z in (x, y))
    x_set, y_set = set_of(x * scale), set_of(y * scale)
    got = PrecisionRecall(k)(x_set, y_set) | DensityCoverage(k)(x_set, y_set)
    assert {name: float(value) for name, value in got.items()} == pytest.approx(exact(x, y, k), rel=1e-12)


def test_one_outlier_widens_recall_and_not_coverage():
    """What Naeem et al. hold against recall: a generated image far away has a ball that holds everything."""
    fake = torch.cat([torch.full((5, 6), 50.0) + 1e-3 * randn(5, 6), torch.full((1, 6), -50.0)])
    assert measure(PrecisionRecall(), REAL, fake)["recall"] == 1.0
    assert measure(DensityCoverage(), REAL, fake)["coverage"] == 0.0


@pytest.mark.parametrize("family", [PrecisionRecall, DensityCoverage])
def test_mistakes(family):
    name = family.__name__
    with pytest.raises(ValueError, match=rf"{name}: neighbours \(=0\) must be at least 1."):
        family(0)
    with pytest.raises(ValueError, match=rf"{name}: neighbours \(=3\) must be less than .* of a set \(=3\)"):
        measure(family(3), REAL[:3])
