import pytest
import torch

from lit_vae.features import PCAFeatures
from lit_vae.metrics import FeatureStatistics, frechet_distance


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


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
    parts = PCAFeatures.fit(x.flip(0).split(7), 6)
    torch.testing.assert_close(parts(x), whole(x))
    assert parts.provenance() == whole.provenance()
    other = PCAFeatures.fit([x[:59]], 6)
    assert other.provenance()["weights_sha256"] != whole.provenance()["weights_sha256"]
    assert whole.called("fd") == "fd_pca6"


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
        sets = []
        for images in (real, fake):
            statistics = FeatureStatistics(features.num_features)
            statistics.update(features(images))
            sets.append(statistics.compute())
        return frechet_distance(*sets)

    assert distance(blurred) > 10.0 * distance(again)
    assert distance(blurred) == pytest.approx(32.0, rel=0.1)  # of 32 components of variance one nothing is left


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: PCAFeatures.fit([]), "PCAFeatures: fit needs at least two images, but was given 0"),
        (lambda: PCAFeatures.fit([torch.ones(5, 1, 2, 2)]), "PCAFeatures: the images given to fit are all the same"),
    ],
)
def test_errors_of_fit(use, message):
    with pytest.raises(ValueError, match=message):
        use()
