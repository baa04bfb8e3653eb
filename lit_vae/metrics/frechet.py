"""The Fréchet distance of two Gaussians, in the cheapest of three equivalent forms.

``|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^1/2``: Dowson and Landau, "The Fréchet distance between multivariate
normal distributions", 1982. Nearly all cost and error is in the last trace. Libraries compute it from the eigenvalues
of the *unsymmetric* product ``S_a S_b``, or iterate for its root. With any factor ``S_b = F F^T``, the symmetric
``F^T S_a F`` has the same eigenvalues; they are computed faster and more accurately.
"""

from itertools import pairwise

import torch
from torch import Tensor

from lit_vae.metrics.feature_sets import FeatureSet

BLOCKS = 8


def frechet_distance(a: FeatureSet, b: FeatureSet) -> Tensor:
    """The distance between Gaussians with the means and covariances of two sets: ``-> ()`` float64.

    If a set has features and fewer images than dimensions, its features are the factor. With 500 images and 2048
    dimensions, the matrix is then 500 x 500 instead of 2048 x 2048.

    >>> a = FeatureSet(100, torch.zeros(2).double(), torch.eye(2).double())
    >>> b = FeatureSet(100, torch.tensor([3.0, 4.0]).double(), torch.eye(2).double())
    >>> frechet_distance(a, b)  # equal covariances: the squared distance of the means
    tensor(25., dtype=torch.float64)
    """
    if not (a.mean.isfinite().all() and b.mean.isfinite().all()):
        return torch.full_like(a.mean[0], torch.nan)  # an eigenvalue solver would raise
    factor_a, factor_b = _factor(a), _factor(b)
    if factor_a is not None and factor_b is not None:
        root_trace = torch.linalg.svdvals(factor_a @ factor_b.T).sum()  # the nuclear norm of F_a^T F_b
    elif factor_a is not None:
        root_trace = _sum_of_roots(factor_a @ b.covariance @ factor_a.T)
    elif factor_b is not None:
        root_trace = _sum_of_roots(factor_b @ a.covariance @ factor_b.T)
    else:
        root_trace = product_root_trace(a.covariance, b.covariance)
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2.0 * root_trace
    return distance.clamp(min=0.0)


def product_root_trace(a: Tensor, b: Tensor) -> Tensor:
    """``tr (A B)^1/2`` of two covariances ``(d, d)``, which may be singular: ``-> ()`` in float64."""
    a, b = a.double(), b.double()
    factor, failed = torch.linalg.cholesky_ex(a)
    if not failed:
        return _sum_of_roots(_lower_triangle(factor, b))
    values, vectors = torch.linalg.eigh(a)  # a singular matrix has no Cholesky factor, but a square root
    factor = vectors * values.clamp(min=0.0).sqrt()
    return _sum_of_roots(factor.T @ b @ factor)


def _lower_triangle(factor: Tensor, b: Tensor) -> Tensor:
    """The lower triangle of ``F^T B F`` for a lower triangular F, in under half the time of the whole product.

    It works block by block and skips the zeros of F and the upper triangle of the result.
    """
    edges = [len(b) * i // BLOCKS for i in range(BLOCKS + 1)]
    product, result = torch.empty_like(b), torch.zeros_like(b)
    for start, stop in pairwise(edges):
        product[:, start:stop] = b[:, start:] @ factor[start:, start:stop]
    for start, stop in pairwise(edges):
        result[start:stop, :stop] = factor[start:, start:stop].T @ product[start:, :stop]
    return result


def _sum_of_roots(symmetric: Tensor) -> Tensor:
    """Sum of the square roots of a symmetric matrix's eigenvalues. It reads the lower triangle only."""
    return torch.linalg.eigvalsh(symmetric).clamp(min=0.0).sqrt().sum()


def _factor(of: FeatureSet) -> Tensor | None:
    """``(N, d)`` with ``F^T F`` the covariance, if all features were kept and are fewer than the dimensions."""
    if of.features is None or not len(of.features) == of.num_images < len(of.mean):
        return None
    return (of.features - of.mean) / (of.num_images - 1) ** 0.5
