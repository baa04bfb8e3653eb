"""What is timed against each other computes the same number."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))


def test_all_ways_to_the_trace_of_the_root_agree() -> None:
    from benchmarks import fid
    from lit_vae.metrics import frechet_distance, product_root_trace

    a, b = fid.features(200, 24, 0), fid.features(200, 24, 1)
    expected = product_root_trace(a.covariance, b.covariance)
    for way in (fid.by_eigenvalues_of_the_product, fid.by_numpy, fid.by_scipy):
        torch.testing.assert_close(way(a.covariance, b.covariance), expected, rtol=1e-6, atol=0.0)
    small_a, small_b = fid.features(8, 24, 2), fid.features(8, 24, 3)
    of_moments = frechet_distance(*(s._replace(features=None) for s in (small_a, small_b)))
    torch.testing.assert_close(frechet_distance(small_a, small_b), of_moments, rtol=1e-5, atol=1e-5)
    assert torch.linalg.cholesky_ex(small_a.covariance).info > 0  # it is the singular case that is timed
