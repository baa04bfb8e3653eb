"""Our sampling and density of a mixture against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from lit_vae.tools.priors import mixture as mixture_module
from lit_vae.tools.priors.mixture import Mixture, fit_mixture

NO_LABEL = -1
N = 20_000


def clusters(seed: int = 0, per_cluster: int = 300) -> torch.Tensor:
    """Three correlated clusters of unequal size in three dimensions."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for i, mean in enumerate(([3.0, 0.0, 0.0], [-3.0, 2.0, 0.0], [0.0, -4.0, 5.0])):
        root = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        eps = torch.randn(per_cluster * (i + 1), 3, generator=generator, dtype=torch.float64)
        parts.append(torch.tensor(mean) + eps @ root)
    return torch.cat(parts)


def no_labels(n: int) -> torch.Tensor:
    return torch.full((n,), NO_LABEL)


def both(covariance: str) -> tuple[Mixture, GaussianMixture]:
    """The same fit by us and by scikit-learn."""
    z = clusters()
    ours, converged = fit_mixture(z, no_labels(len(z)), 0, 3, covariance, seed=0)
    assert converged
    theirs = GaussianMixture(3, covariance_type=covariance, max_iter=1000, random_state=0).fit(z.numpy())
    return ours, theirs


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_the_log_density_is_that_of_scikit_learn(covariance: str) -> None:
    ours, theirs = both(covariance)
    z = clusters(seed=1)
    expected = torch.from_numpy(theirs.score_samples(z.numpy()))
    torch.testing.assert_close(ours.log_prob(z, no_labels(len(z))), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_samples_have_the_mean_and_covariance_of_the_mixture(covariance: str) -> None:
    ours, theirs = both(covariance)
    z = ours.sample(no_labels(N), 1.0, seed=0).numpy()
    covariances = theirs.covariances_ if covariance == "full" else np.stack([np.diag(v) for v in theirs.covariances_])
    mean = theirs.weights_ @ theirs.means_
    centered = theirs.means_ - mean
    cov = np.einsum("k,kij->ij", theirs.weights_, covariances + centered[:, :, None] * centered[:, None, :])
    products = (z - mean)[:, :, None] * (z - mean)[:, None, :]
    assert np.all(np.abs(z.mean(0) - mean) < 4 * z.std(0) / N**0.5)
    assert np.all(np.abs(products.mean(0) - cov) < 4 * products.std(0) / N**0.5)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_samples_are_as_likely_as_those_of_scikit_learn(covariance: str) -> None:
    # The mean log-density of draws is minus the entropy: a transposed factor or a wrong weight lowers it.
    ours, theirs = both(covariance)
    of_ours = theirs.score_samples(ours.sample(no_labels(N), 1.0, seed=0).numpy())
    of_theirs = theirs.score_samples(theirs.sample(N)[0])
    error = ((of_ours.var() + of_theirs.var()) / N) ** 0.5
    assert abs(of_ours.mean() - of_theirs.mean()) < 4 * error
    of_ours, of_theirs = np.sort(of_ours), np.sort(of_theirs)  # Kolmogorov-Smirnov, at a level of 1e-4
    difference = np.abs(np.arange(1, N + 1) / N - np.searchsorted(of_theirs, of_ours, side="right") / N).max()
    assert difference < 2.23 * (2 / N) ** 0.5


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_temperature_scales_the_noise_within_a_component(covariance: str) -> None:
    mixture, _ = both(covariance)
    y = no_labels(500)
    at_0, at_half, at_1 = (mixture.sample(y, temperature, seed=3) for temperature in (0.0, 0.5, 1.0))
    nearest = torch.cdist(at_0, mixture.means[0]).amin(1)
    assert nearest.max() == 0.0
    assert len(at_0.unique(dim=0)) == 3
    torch.testing.assert_close(at_half - at_0, 0.5 * (at_1 - at_0))
    assert torch.equal(at_1, mixture.sample(y, 1.0, seed=3))
    assert not torch.equal(at_1, mixture.sample(y, 1.0, seed=4))


def test_each_class_has_the_mixture_that_is_fitted_to_it_alone() -> None:
    z, y = clusters(), torch.arange(1800) % 2
    mixture, _ = fit_mixture(z, y, 2, 2, "full", seed=0)
    asked = torch.tensor([1, 0, 1])
    points = clusters(seed=2)[:3]
    for label in (0, 1):
        alone, _ = fit_mixture(z[y == label], no_labels(900), 0, 2, "full", seed=0)
        of_label = asked == label
        torch.testing.assert_close(
            mixture.log_prob(points, asked)[of_label], alone.log_prob(points, no_labels(3))[of_label]
        )
        # the noise belongs to the row, not to the label
        assert torch.equal(mixture.sample(asked, 1.0, 0)[of_label], alone.sample(no_labels(3), 1.0, 0)[of_label])


def test_chunks_do_not_change_the_log_density(monkeypatch: pytest.MonkeyPatch) -> None:
    mixture, _ = both("full")
    z = clusters(seed=1)
    whole = mixture.log_prob(z, no_labels(len(z)))
    monkeypatch.setattr(mixture_module, "_CHUNK_ELEMENTS", 7 * mixture.means[0].numel())
    torch.testing.assert_close(mixture.log_prob(z, no_labels(len(z))), whole, rtol=1e-13, atol=1e-13)


def test_an_unfinished_em_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_module, "_MOST_ITERATIONS", 1)
    z = clusters()
    assert fit_mixture(z, no_labels(len(z)), 0, 5, "full", seed=0)[1] is False


def test_too_many_dimensions_for_full_covariances() -> None:
    z = torch.randn(20, 513, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"the latent has 513 dimensions, flattened.*Give --covariance diag\."):
        fit_mixture(z, no_labels(20), 0, 2, "full", seed=0)
    mixture, _ = fit_mixture(z, no_labels(20), 0, 2, "diag", seed=0)
    assert mixture.cholesky.shape == (1, 2, 513)


@pytest.mark.parametrize(
    ("covariance", "num_classes", "expected"),
    [
        ("full", 0, r"3 components with --covariance full in 3 dimensions need at least 12 images, the training set has"
         r" 11\. Give fewer --components, or --covariance diag\."),
        ("diag", 2, r"need at least 6 images, the smallest class has 5\. Give fewer --components\.$"),
    ],
)  # fmt: skip
def test_too_few_images(covariance: str, num_classes: int, expected: str) -> None:
    y = torch.arange(11) % 2 if num_classes else no_labels(11)
    with pytest.raises(ValueError, match=expected):
        fit_mixture(clusters()[:11], y, num_classes, 3, covariance, seed=0)
