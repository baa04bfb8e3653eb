"""What judging sets of images costs: looking at an image, and the trace of the matrix root in the Fréchet distance.

Inception has random weights, which cost what trained ones do. Covariances are of as many made-up features as are told.
"""

import warnings
from collections.abc import Callable
from importlib import metadata

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.features import Inception
from lit_vae.images import levels
from lit_vae.metrics import FeatureSet, FeatureStatistics, frechet_distance, product_root_trace

FEATURES, IMAGES, FEW, BATCH, SIZE = 2048, 4096, 500, 16, 32
QUICK_FEATURES, QUICK_IMAGES, QUICK_FEW, QUICK_BATCH = 32, 64, 8, 1
ROUNDS = 5
OURS, SINGULAR, SMALL = "lit_vae", "lit_vae, a singular covariance", "lit_vae, fewer images than features"
LOOKING, JUDGING = "Inception alone", "levels, Inception, sums in float64"
OVER_TORCHMETRICS, OVER_SCIPY, OVER_LARGE, OVERHEAD = 2.5, 8.0, 50.0, 1.03


def features(num_images: int, num_features: int, seed: int) -> FeatureSet:
    """Features as networks have them: not negative, with variances over several decades, and correlated."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(num_features, num_features, generator=generator, dtype=torch.float64)
    mixing *= torch.logspace(0, -3, num_features, dtype=torch.float64)
    x = torch.randn(num_images, num_features, generator=generator, dtype=torch.float64) @ mixing.T
    statistics = FeatureStatistics(num_features, keep=True)
    statistics.update(x.relu())
    return statistics.compute()


def by_eigenvalues_of_the_product(a: Tensor, b: Tensor) -> Tensor:
    """As torchmetrics has it, and pytorch-fid's successors; torch-fidelity the same in NumPy."""
    return torch.linalg.eigvals(a @ b).sqrt().real.sum()


def by_numpy(a: Tensor, b: Tensor) -> Tensor:
    """As torch-fidelity has it."""
    values = np.linalg.eigvals(a.numpy() @ b.numpy()).astype("complex128")
    return torch.tensor(np.sqrt(values).real.sum())


def by_scipy(a: Tensor, b: Tensor) -> Tensor:
    """As pytorch-fid and the original code have it."""
    return torch.tensor(np.trace(scipy.linalg.sqrtm(a.numpy() @ b.numpy())).real)


def seconds(work: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """What times ``work`` once."""

    def run() -> float:
        start = now(device)
        work()
        return now(device) - start

    return run


def roots(quick: bool) -> list[Row]:
    """The trace of the root, and the whole distance of two small sets; always on the CPU, in float64."""
    d, n, few = (QUICK_FEATURES, QUICK_IMAGES, QUICK_FEW) if quick else (FEATURES, IMAGES, FEW)
    cpu = torch.device("cpu")
    a, b = features(n, d, 0), features(n, d, 1)
    small_a, small_b = features(few, d, 2), features(few, d, 3)
    flat = small_a.covariance
    torchmetrics = f"torchmetrics {metadata.version('torchmetrics')}"
    scipy_name, fidelity = f"scipy {metadata.version('scipy')}", f"torch-fidelity {metadata.version('torch-fidelity')}"
    covariances = (a.covariance, b.covariance)
    times = interleave(
        {
            scipy_name: seconds(lambda: by_scipy(*covariances), cpu),
            fidelity: seconds(lambda: by_numpy(*covariances), cpu),
            torchmetrics: seconds(lambda: by_eigenvalues_of_the_product(*covariances), cpu),
            OURS: seconds(lambda: product_root_trace(*covariances), cpu),
            SINGULAR: seconds(lambda: product_root_trace(flat, b.covariance), cpu),
            SMALL: seconds(lambda: frechet_distance(small_a, small_b), cpu),
        },
        1 if quick else ROUNDS,
    )

    def row(section: str, variant: str, baseline: str = "", target: float | None = None) -> Row:
        median = 1e3 * spread(times[variant]).median
        of = ratio(times, variant, baseline) if baseline else None
        return Row(section, variant, median, "ms", baseline, of, None if quick else target, ">=")

    root, small = f"fid, tr (A B)^1/2 of {d} x {d}", f"fid, distance of {few} images with {d} features"
    return [
        row(root, OURS),
        row(root, torchmetrics, OURS, OVER_TORCHMETRICS),
        row(root, scipy_name, OURS, OVER_SCIPY),
        row(root, fidelity, OURS),
        row(root, SINGULAR, OURS),
        row(small, SMALL),
        row(small, torchmetrics, SMALL, OVER_LARGE),
        row(small, OURS, SMALL),
    ]


def looking(device: torch.device, quick: bool) -> list[Row]:
    """An update of the statistics beside the network alone."""
    batch = QUICK_BATCH if quick else BATCH
    x = torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device) * 2.0 - 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its weights are random
        inception = Inception("random").to(device)
        u = levels(x, "uint8")
        inception(u)
    statistics = FeatureStatistics(inception.num_features).to(device)
    with torch.no_grad():
        times = interleave(
            {
                LOOKING: seconds(lambda: inception(u), device),
                JUDGING: seconds(lambda: statistics.update(inception(levels(x, "uint8"))), device),
            },
            1 if quick else 3 * ROUNDS,
        )
    section = f"fid, an image of {SIZE} x {SIZE}, batch {batch}"
    per_image = {name: 1e3 * spread(values).median / batch for name, values in times.items()}
    target = None if quick else OVERHEAD
    return [
        Row(section, LOOKING, per_image[LOOKING], "ms"),
        Row(section, JUDGING, per_image[JUDGING], "ms", LOOKING, ratio(times, JUDGING, LOOKING), target),
    ]


def run(device: torch.device, quick: bool) -> list[Row]:
    """Both."""
    return [*looking(device, quick), *roots(quick)]
