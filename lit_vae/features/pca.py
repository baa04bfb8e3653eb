"""Features of images without a network: principal components of a training set."""

import hashlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.features.base import ImageFeatures

LARGEST_SIZE = 32
LEAST_VARIANCE = 1e-4


class PCAFeatures(ImageFeatures):
    """First principal components of a training set, scaled to variance one on that set: ``(B, d)`` float64.

    Images larger than 32 pixels are first averaged down to 32. A Fréchet distance in 64 components, ``fd_pca64``, is a
    substitute where no network is available. It is **not** the FID: the features are linear, so it only compares mean
    and covariance of the pixels. Compare it only between models of one data set.

    Without the scaling, the first components (brightness, coarse shape) would have nearly all the variance, and blurred
    samples would score as well as real images. Components with less than 1e-4 of the first one's variance are left out,
    because scaling would amplify noise; sets like 8x8 digits have fewer than 64 components.

    Args:
        mean: mean ``(D,)`` of the training images, in levels.
        projection: ``(D, d)``, components divided by their standard deviation.
        name: ``pca<n>`` for n requested components.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, mean: Tensor, projection: Tensor, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("mean", mean)
        self.register_buffer("projection", projection)

    @classmethod
    def fit(cls, batches: Iterable[Tensor], num_components: int = 64) -> "PCAFeatures":
        """Fit to all images of ``batches``, levels ``(B, C, H, W)`` uint8.

        One pass with sums in float64; memory is that of a ``D x D`` matrix for any number of images. Order and batches
        only change the rounding.
        """
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        shift: Tensor | None = None
        for batch in batches:
            x = _vectors(batch).cpu()
            shift = x.mean(0) if shift is None else shift  # smaller squares lose fewer digits
            x = x - shift
            count, total, products = count + len(x), total + x.sum(0), products + x.T @ x
        if shift is None or count < 2:
            raise ValueError(
                f"PCAFeatures: fit needs at least two images, but was given {count}. Give it a training set."
            )
        mean = total / count
        values, vectors = torch.linalg.eigh((products - count * torch.outer(mean, mean)) / (count - 1))
        values, vectors = values.flip(0), vectors.flip(1)  # largest first
        kept = min(num_components, int((values > LEAST_VARIANCE * values[0]).sum()))
        if kept == 0:
            raise ValueError("PCAFeatures: the images given to fit are all the same. Give it a training set.")
        vectors = vectors[:, :kept]
        return cls(mean + shift, vectors * _signs(vectors) / values[:kept].sqrt(), f"pca{num_components}")

    @property
    def num_features(self) -> int:
        """Number of components."""
        return self.projection.shape[1]

    def forward(self, u: Tensor) -> Tensor:
        """See the class."""
        return (_vectors(u) - self.mean) @ self.projection

    def provenance(self) -> dict[str, str]:
        """See `ImageFeatures`; the hash is of mean and projection rounded to five digits."""
        found = hashlib.sha256()
        for part in (self.mean.cpu(), self.projection.cpu()):
            found.update(torch.round(part * 1e5 / part.abs().max()).to(torch.int64).numpy().tobytes())
        return {
            "features": f"PCA of the training images, {self.num_features} components",
            "weights_sha256": found.hexdigest(),
        }


def _signs(vectors: Tensor) -> Tensor:
    """Sign of the first of the largest entries in each column, independent of rounding of equal entries."""
    size = vectors.abs()
    first = (size > (1.0 - 1e-6) * size.amax(0)).int().argmax(0, keepdim=True)
    return vectors.gather(0, first).sign()


def _vectors(u: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, D)`` float64, averaged to at most 32 x 32 pixels."""
    x = u.double()
    if max(x.shape[-2:]) > LARGEST_SIZE:
        height, width = (min(size, LARGEST_SIZE) for size in x.shape[-2:])
        x = F.adaptive_avg_pool2d(x, (height, width))
    return x.flatten(1)
