"""The Fréchet distance of two Gaussians, by whichever of three equal forms is cheapest.

``|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^1/2``: Dowson and Landau, "The Fréchet distance between multivariate
normal distributions", 1982. All of its cost, and all of its error, is in the last trace. Libraries take it from the
eigenvalues of the *unsymmetric* product ``S_a S_b``, or from an iteration for its root. With any factor ``S_b = F F^T``
those are the eigenvalues of the symmetric ``F^T S_a F``, which are found faster and to the last digits.
"""

from itertools import pairwise

import torch
from torch import Tensor

from lit_vae.metrics.feature_sets import FeatureSet

BLOCKS = 8


def frechet_distance(a: FeatureSet, b: FeatureSet) -> Tensor:
    """Of the Gaussians with the means and covariances of two sets: ``-> ()`` float64.

    Where features are at hand and there are fewer of them than dimensions, they are the factor: a set of 500 images
    then costs the eigenvalues of a matrix of 500 x 500, and two such sets the singular values of one, in place of those
    of 2048 x 2048.

    >>> a = FeatureSet(100, torch.zeros(2).double(), torch.eye(2).double())
    >>> b = FeatureSet(100, torch.tensor([3.0, 4.0]).double(), torch.eye(2).double())
    >>> frechet_distance(a, b)  # equal covariances: the squared distance of the means
    tensor(25., dtype=torch.float64)
    """
    if not (a.mean.isfinite().all() and b.mean.isfinite().all()):
        return torch.full_like(a.mean[0], torch.nan)  # of images that were not: an eigenvalue solver would raise
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
    """``tr (A B)^1/2`` of two covariances ``(d, d)``, singular ones too: ``-> ()`` in float64."""
    a, b = a.double(), b.double()
    factor, failed = torch.linalg.cholesky_ex(a)
    if not failed:
        return _sum_of_roots(_lower_triangle(factor, b))
    values, vectors = torch.linalg.eigh(a)  # a singular matrix has no Cholesky factor, but a root
    factor = vectors * values.clamp(min=0.0).sqrt()
    return _sum_of_roots(factor.T @ b @ factor)


def _lower_triangle(factor: Tensor, b: Tensor) -> Tensor:
    """``F^T B F`` for a lower triangular F, where only its lower triangle holds: in under half the time of the whole.

    Block by block, so that no product is with the zeros of F and none is of the upper triangle.
    """
    edges = [len(b) * i // BLOCKS for i in range(BLOCKS + 1)]
    product, result = torch.empty_like(b), torch.zeros_like(b)
    for start, stop in pairwise(edges):
        product[:, start:stop] = b[:, start:] @ factor[start:, start:stop]
    for start, stop in pairwise(edges):
        result[start:stop, :stop] = factor[start:, start:stop].T @ product[start:, :stop]
    return result


def _sum_of_roots(symmetric: Tensor) -> Tensor:
    """Of the eigenvalues of a symmetric matrix, of which the lower triangle counts; those below zero are rounding."""
    return torch.linalg.eigvalsh(symmetric).clamp(min=0.0).sqrt().sum()


def _factor(of: FeatureSet) -> Tensor | None:
    """``(N, d)`` with ``F^T F`` the covariance, where all features are at hand and fewer than dimensions."""
    if of.features is None or not len(of.features) == of.num_images < len(of.mean):
        return None
    return (of.features - of.mean) / (of.num_images - 1) ** 0.5
