import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_vae.metrics import FeatureSet, FeatureStatistics, frechet_distance, product_root_trace
from lit_vae.metrics.frechet import _lower_triangle


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(d, seed):
    root = randn(d, 2 * d, seed=seed)
    return root @ root.T / d


def gaussian(mean, cov):
    return FeatureSet(2, mean, cov)


def features_of(x, keep):
    statistics = FeatureStatistics(x.shape[1], keep)
    for batch in x.split(4):
        statistics.update(batch)
    return statistics.compute()


class Flat(nn.Module):
    num_features = 12

    def forward(self, x):
        return x.flatten(1)


def test_gaussians_that_commute_have_a_closed_form():
    """For diagonal covariances it is |m_a - m_b|^2 + sum (s_a - s_b)^2."""
    mean_a, mean_b, std_a, std_b = randn(4, 7).unbind()
    expected = (mean_a - mean_b).square().sum() + (std_a.abs() - std_b.abs()).square().sum()
    got = frechet_distance(gaussian(mean_a, std_a.square().diag()), gaussian(mean_b, std_b.square().diag()))
    torch.testing.assert_close(got, expected)


def test_against_the_matrix_square_root_of_scipy():
    a, b = covariance(6, 1), covariance(6, 2)
    mean_a, mean_b = randn(2, 6)
    root = scipy.linalg.sqrtm(a.numpy() @ b.numpy()).real
    expected = (mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2.0 * np.trace(root)
    torch.testing.assert_close(frechet_distance(gaussian(mean_a, a), gaussian(mean_b, b)), expected)
    torch.testing.assert_close(frechet_distance(gaussian(mean_b, b), gaussian(mean_a, a)), expected)


@pytest.mark.parametrize("rank", [0, 2, 8])
def test_singular_covariances(rank):
    """A matrix of rank r has no Cholesky factor; for A = B the trace is that of A."""
    factor = randn(8, rank, seed=2)
    flat = factor @ factor.T
    torch.testing.assert_close(product_root_trace(flat, flat), flat.trace(), rtol=1e-6, atol=1e-6)
    full = covariance(8, 1)
    torch.testing.assert_close(product_root_trace(flat, full), product_root_trace(full, flat), rtol=1e-6, atol=1e-6)
    assert frechet_distance(gaussian(torch.zeros(8), flat), gaussian(torch.zeros(8), flat)) < 1e-6


@pytest.mark.parametrize("d", [1, 5, 8, 30])  # fewer than blocks, as many, not divisible
def test_the_lower_triangle_is_that_of_the_product(d):
    factor = torch.linalg.cholesky(covariance(d, 1))
    b = covariance(d, 2)
    torch.testing.assert_close(_lower_triangle(factor, b).tril(), (factor.T @ b @ factor).tril())


@pytest.mark.parametrize("sizes", [(7, 9), (7, 40), (40, 7), (30, 40), (12, 12)])
def test_the_forms_agree(sizes):
    """Fewer features than dimensions on both sides, on one, on none."""
    x, y = randn(sizes[0], 12), 0.5 + 2.0 * randn(sizes[1], 12, seed=1)
    expected = frechet_distance(features_of(x, keep=False), features_of(y, keep=False))
    for keep_x, keep_y in ((True, True), (True, False), (False, True)):
        got = frechet_distance(features_of(x, keep_x), features_of(y, keep_y))
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [(30, 50), (7, 9)])  # the second: fewer images than features
@pytest.mark.parametrize("keep", [False, True])
def test_sets_against_torchmetrics_in_batches_of_any_size(sizes, keep):
    real, fake = randn(sizes[0], 1, 3, 4), 0.5 + 2.0 * randn(sizes[1], 1, 3, 4, seed=1)
    theirs = FrechetInceptionDistance(feature=Flat())
    for images, is_real in ((real, True), (fake, False)):
        theirs.update(images, real=is_real)
    ours = frechet_distance(features_of(real.flatten(1), keep), features_of(fake.flatten(1), keep))
    torch.testing.assert_close(ours, theirs.compute(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("keep", [False, True])
def test_a_set_against_itself_is_at_zero(keep):
    x = randn(10, 12)
    assert frechet_distance(features_of(x, keep), features_of(x.flip(0), keep)) < 1e-6


def test_moments_are_those_of_all_images():
    x = 100.0 + randn(11, 5).float()
    found = features_of(x, keep=True)
    assert found.num_images == 11
    torch.testing.assert_close(found.mean, x.double().mean(0))
    torch.testing.assert_close(found.covariance, x.double().T.cov())
    assert torch.equal(found.features, x)
    assert features_of(x, keep=False).features is None


def test_one_image_is_no_set():
    with pytest.raises(ValueError, match=r"a set of 1 images has no covariance. Give at least two"):
        features_of(randn(1, 3), keep=False)
