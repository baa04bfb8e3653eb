import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lit_vae.metrics.frechet import FrechetDistance, PCAFeatures, frechet_distance


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(d, seed):
    root = randn(d, 2 * d, seed=seed)
    return root @ root.T / d


class Flat(nn.Module):
    num_features = 12

    def forward(self, x):
        return x.flatten(1)


def test_gaussians_that_commute_have_a_closed_form():
    """For diagonal covariances it is |m_a - m_b|^2 + sum (s_a - s_b)^2."""
    mean_a, mean_b, std_a, std_b = randn(4, 7).unbind()
    expected = (mean_a - mean_b).square().sum() + (std_a.abs() - std_b.abs()).square().sum()
    got = frechet_distance(mean_a, std_a.square().diag(), mean_b, std_b.square().diag())
    torch.testing.assert_close(got, expected)


def test_against_the_matrix_square_root_of_scipy():
    a, b = covariance(6, 1), covariance(6, 2)
    mean_a, mean_b = randn(2, 6)
    root = scipy.linalg.sqrtm(a.numpy() @ b.numpy()).real
    expected = (mean_a - mean_b).square().sum() + a.trace() + b.trace() - 2.0 * np.trace(root)
    torch.testing.assert_close(frechet_distance(mean_a, a, mean_b, b), expected)
    torch.testing.assert_close(frechet_distance(mean_b, b, mean_a, a), expected)


def test_a_gaussian_against_itself_is_at_zero_even_if_it_is_flat():
    flat = randn(8, 2)
    flat = flat @ flat.T  # rank 2
    assert frechet_distance(torch.zeros(8), flat, torch.zeros(8), flat) < 1e-6


@pytest.mark.parametrize("sizes", [(30, 50), (7, 9)])  # the second: fewer images than features
def test_sets_against_torchmetrics_in_batches_of_any_size(sizes):
    real, fake = randn(sizes[0], 1, 3, 4), 0.5 + 2.0 * randn(sizes[1], 1, 3, 4, seed=1)
    ours, theirs = FrechetDistance(Flat()), FrechetInceptionDistance(feature=Flat())
    for metric, split in ((ours, 4), (theirs, 100)):
        for images, is_real in ((real, True), (fake, False)):
            for batch in images.split(split):
                metric.update(batch, real=is_real)
    torch.testing.assert_close(ours.compute(), theirs.compute(), rtol=1e-6, atol=1e-6)


def test_a_set_against_itself_is_at_zero():
    x = randn(10, 1, 3, 4)
    metric = FrechetDistance(Flat())
    metric.update(x, real=True)
    metric.update(x.flip(0), real=False)
    assert metric.compute() < 1e-6


def test_components_are_those_of_the_singular_vectors_with_variance_one():
    x = 3.0 + randn(200, 2, 3, 4) * torch.linspace(1, 4, 24).reshape(2, 3, 4)
    features = PCAFeatures.fit(x.split(33), num_components=5)
    centred = x.flatten(1) - x.flatten(1).mean(0)
    u = torch.linalg.svd(centred, full_matrices=False).U
    got = features(x)
    torch.testing.assert_close(got.abs(), u[:, :5].abs() * 199**0.5)
    torch.testing.assert_close(got.T.cov(), torch.eye(5, dtype=torch.float64))
    assert features.num_features == 5


def test_fit_depends_on_neither_batches_nor_order():
    x = 100.0 + randn(60, 1, 3, 4)
    whole = PCAFeatures.fit([x], 6)
    parts = PCAFeatures.fit(((batch, None) for batch in x.flip(0).split(7)), 6)
    torch.testing.assert_close(parts(x), whole(x))


def test_directions_in_which_the_images_do_not_vary_are_left_out():
    x = torch.zeros(50, 1, 3, 4, dtype=torch.float64)
    x[:, 0, 0] = randn(50, 4)
    x[:, 0, 1, 0] = 1e-3 * randn(50, seed=1)
    assert PCAFeatures.fit([x], 12).num_features == 4


def test_large_images_are_averaged_down():
    x = randn(20, 1, 16, 16).repeat_interleave(4, 2).repeat_interleave(4, 3)  # 64 x 64
    small = x[..., ::2, ::2]  # each pixel of it is the mean of its 2 x 2
    torch.testing.assert_close(PCAFeatures.fit([x], 5)(x), PCAFeatures.fit([small], 5)(small))


def test_blur_is_seen():
    """What the scaling is for: without detail is further from the real images than another draw of them."""
    basis = torch.linalg.qr(randn(64, 64))[0] * torch.logspace(1, -0.5, 64)  # variances over three decades
    real, again = ((randn(2000, 64, seed=seed) @ basis.T).reshape(-1, 1, 8, 8) for seed in (1, 2))
    features = PCAFeatures.fit([real])
    detail = features.projection[:, 32:]
    scale = torch.linalg.pinv(features.projection)[32:]
    blurred = again - ((again.flatten(1) @ detail) @ scale).reshape_as(again)

    def distance(fake):
        metric = FrechetDistance(features)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return metric.compute()

    assert distance(blurred) > 10.0 * distance(again)
    assert distance(blurred) == pytest.approx(32.0, rel=0.1)  # of 32 components of variance one nothing is left


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: PCAFeatures.fit([]), "PCAFeatures: fit needs at least two images, and was given 0"),
        (lambda: PCAFeatures.fit([torch.ones(5, 1, 2, 2)]), "PCAFeatures: the images given to fit are all the same"),
    ],
)
def test_errors_of_fit(use, message):
    with pytest.raises(ValueError, match=message):
        use()


def test_a_set_that_is_missing_is_named():
    metric = FrechetDistance(Flat())
    metric.update(randn(5, 1, 3, 4), real=True)
    with pytest.raises(ValueError, match=r"the fake set has 0 images, .* Call update\(images, real=False\) first"):
        metric.compute()
