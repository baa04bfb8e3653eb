"""A distance between two sets of images that needs no pretrained network: ``fd_pca64``."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

LARGEST_SIZE = 32
LEAST_VARIANCE = 1e-4


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """``|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)`` of two Gaussians: ``(d,), (d, d), ... -> ()``.

    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982. In float64, through the
    eigenvalues of *symmetric* matrices: those of the product ``S_a S_b``, which libraries take, are accurate to the
    square root of the machine precision only where a covariance is singular, as it is for small sets.
    """
    mean_a, cov_a, mean_b, cov_b = (t.double() for t in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    product = root_a @ cov_b @ root_a
    root_trace = torch.linalg.eigvalsh((product + product.T) / 2.0).clamp(min=0.0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2.0 * root_trace
    return distance.clamp(min=0.0)


class PCAFeatures(nn.Module):
    """An image's first principal components over a training set, each scaled to variance one there.

    ``x (B, C, H, W) -> (B, num_features)`` float64. Images larger than 32 pixels are first averaged down to 32.

    Scaled, because in plain pixels the first few components (brightness, a coarse shape) have nearly all the variance,
    and images without any detail would be as good as real ones: the very fault of an autoencoder's samples. Components
    with less than 1e-4 of the first one's variance are left out, since there the scale would be that of noise; sets
    like 8x8 digits have fewer than 64 of them.

    Args:
        mean: ``(D,)`` of the training images.
        projection: ``(D, num_features)``, components divided by their standard deviation.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, mean: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("projection", projection)
        self.num_features = projection.shape[1]

    @classmethod
    def fit(cls, batches: Iterable[tuple[Tensor, ...] | Tensor], num_components: int = 64) -> "PCAFeatures":
        """Fit to all images of ``batches``: tensors ``(B, C, H, W)``, or tuples that begin with one.

        One pass, by sums in float64: memory is that of a ``D x D`` matrix, whatever the number of images. A function of
        the images, not of their order or batches (but for rounding).
        """
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        shift: Tensor | None = None
        for batch in batches:
            x = _vectors(batch if isinstance(batch, Tensor) else batch[0]).cpu()
            shift = x.mean(0) if shift is None else shift  # squares of what is left are smaller, and cancel less
            x = x - shift
            count, total, products = count + len(x), total + x.sum(0), products + x.T @ x
        if shift is None or count < 2:
            raise ValueError(
                f"PCAFeatures: fit needs at least two images, and was given {count}. Give it a training set."
            )
        mean = total / count
        values, vectors = torch.linalg.eigh((products - count * torch.outer(mean, mean)) / (count - 1))
        values, vectors = values.flip(0), vectors.flip(1)  # largest first
        kept = min(num_components, int((values > LEAST_VARIANCE * values[0]).sum()))
        if kept == 0:
            raise ValueError("PCAFeatures: the images given to fit are all the same. Give it a training set.")
        vectors = vectors[:, :kept]
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        return cls(mean + shift, vectors * largest.sign() / values[:kept].sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return (_vectors(x) - self.mean) @ self.projection


class FrechetDistance(Metric):
    """Fréchet distance between Gaussians fitted to the features of two sets of images: of real ones and of others.

    With `PCAFeatures` of 64 components this is ``fd_pca64``. It is a stand-in where no pretrained network is at hand,
    **not** the FID: its features are linear in the pixels, so it sees mean, covariance and nothing else of them, its
    scale is its own, and it is comparable between models of the same data set only. Like the FID it falls with the
    number of images, so compare equal numbers.

    Args:
        features: ``x (B, C, H, W) -> (B, d)``, with ``num_features`` d.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        d = int(features.num_features)  # type: ignore[arg-type]
        for name in ("real", "fake"):
            self.add_state(f"{name}_count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_sum", torch.zeros(d, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{name}_products", torch.zeros(d, d, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, images: Tensor, real: bool) -> None:
        """Take in images ``(B, C, H, W)`` in [-1, 1] of one of the two sets."""
        features = self.features(images).double()
        name = "real" if real else "fake"
        setattr(self, f"{name}_count", getattr(self, f"{name}_count") + len(features))
        setattr(self, f"{name}_sum", getattr(self, f"{name}_sum") + features.sum(0))
        setattr(self, f"{name}_products", getattr(self, f"{name}_products") + features.T @ features)

    def compute(self) -> Tensor:
        """The distance, over all ranks: sums are reduced before any mean or covariance is taken of them."""
        return frechet_distance(*self._moments("real"), *self._moments("fake"))

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        count, total = getattr(self, f"{name}_count"), getattr(self, f"{name}_sum")
        if count < 2:
            raise ValueError(
                f"FrechetDistance: the {name} set has {int(count)} images, it needs two at least."
                f" Call update(images, real={name == 'real'}) first."
            )
        mean = total / count
        return mean, (getattr(self, f"{name}_products") - count * torch.outer(mean, mean)) / (count - 1)


def _vectors(x: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, D)`` float64, no larger than 32 x 32."""
    x = x.double()
    if max(x.shape[-2:]) > LARGEST_SIZE:
        height, width = (min(size, LARGEST_SIZE) for size in x.shape[-2:])
        x = F.adaptive_avg_pool2d(x, (height, width))
    return x.flatten(1)
