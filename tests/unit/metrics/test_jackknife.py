"""Replicates are the number of all images but a group; their error is the one that other draws of images show."""

import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor

from lit_vae.intervals import GROUPS, T_QUANTILE, half_width, standard_error
from lit_vae.metrics import FeatureStatistics, ImageQualityMetric, SharpnessMetric, SplitMean, frechet_distance
from lit_vae.metrics.feature_sets import MOST_IN_GROUPS

N = 70


def rows(metric: SplitMean, values: Tensor, index: Tensor) -> Tensor:
    for part in torch.arange(len(values)).split(9):
        metric.update(values[part], len(part), index[part])
    return metric.estimates()


def test_each_replicate_of_a_mean_is_that_of_the_other_images() -> None:
    values, order = torch.randn(N, 3), torch.randperm(N)
    got = rows(SplitMean((3,)), values[order], order)
    expected = [values, *(values[torch.arange(N) % GROUPS != group] for group in range(GROUPS))]
    torch.testing.assert_close(got, torch.stack([kept.double().mean(0) for kept in expected]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", [SharpnessMetric(), ImageQualityMetric(12, 12)], ids=["ratio", "mean"])
def test_each_replicate_of_a_number_is_that_of_the_other_images(metric: SharpnessMetric | ImageQualityMetric) -> None:
    x = torch.rand(N, 1, 12, 12) * 2 - 1
    x_hat = (x + 0.2 * torch.randn(x.shape)).clamp(-1, 1)
    for part in torch.randperm(N).split(11):
        metric.update(x_hat[part], x[part], part)
    got = metric.compute()
    for group in range(GROUPS):
        kept = torch.arange(N) % GROUPS != group
        metric.reset()
        metric.update(x_hat[kept], x[kept])
        for name, value in metric.compute().items():
            torch.testing.assert_close(got[name][1 + group], value, rtol=1e-9, atol=0.0)


def test_each_replicate_of_a_set_is_that_of_the_other_images() -> None:
    features = torch.randn(N, 4)
    statistics = FeatureStatistics(4)
    for part in torch.randperm(N).split(11):
        statistics.update(features[part], part)
    found = statistics.compute()
    assert len(found.without_each) == GROUPS
    for group, without in enumerate(found.without_each):
        kept = features[torch.arange(N) % GROUPS != group].double()
        assert without.num_images == len(kept)
        torch.testing.assert_close(without.mean, kept.mean(0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(without.covariance, kept.T.cov(), rtol=1e-10, atol=1e-12)


def test_none_are_made_up_where_positions_are_unknown_images_few_or_features_long() -> None:
    unknown = SplitMean()
    unknown.update(torch.randn(50), 50)
    assert unknown.estimates().shape == (1,)
    assert rows(SplitMean(), torch.randn(GROUPS - 1), torch.arange(GROUPS - 1)).shape == (1,)
    statistics = FeatureStatistics(MOST_IN_GROUPS + 1)
    statistics.update(torch.randn(40, MOST_IN_GROUPS + 1), torch.arange(40))
    assert statistics.compute().without_each == ()


def test_the_error_of_a_mean_is_that_of_the_means_of_the_groups() -> None:
    values = torch.randn(10 * GROUPS).double()
    replicates = rows(SplitMean(), values, torch.arange(len(values)))[1:].tolist()
    means = values.view(10, GROUPS).mean(0)
    assert standard_error(replicates) == pytest.approx(means.std().item() / math.sqrt(GROUPS), rel=1e-9)
    assert half_width(replicates) == T_QUANTILE * standard_error(replicates)
    assert pytest.approx(scipy.stats.t.ppf(0.975, GROUPS - 1), abs=5e-5) == T_QUANTILE


def of_means(x: Tensor, index: Tensor) -> list[float]:
    return rows(SplitMean(), x[:, 0], index).tolist()


def of_distances(x: Tensor, index: Tensor) -> list[float]:
    """Of two sets that see the same images, as reconstructions and originals do."""
    sets = []
    for features in (x, 0.7 * x + 0.5):
        statistics = FeatureStatistics(x.shape[1])
        statistics.update(features, index)
        sets.append(statistics.compute())
    pairs = [(sets[0], sets[1]), *zip(sets[0].without_each, sets[1].without_each, strict=True)]
    return [float(frechet_distance(*pair)) for pair in pairs]


@pytest.mark.parametrize(
    ("number", "truth"),
    # |m_a - m_b|^2 + (1 - 0.7)^2 tr S of a standard normal of 3 dimensions
    [
        pytest.param(of_means, 0.0, id="mean"),
        pytest.param(of_distances, 3 * 0.5**2 + 3 * 0.3**2, id="distance", marks=pytest.mark.slow),
    ],
)
def test_nineteen_of_twenty_intervals_hold_the_truth(
    number: Callable[[Tensor, Tensor], list[float]], truth: float
) -> None:
    held = 0
    for _ in range(400):
        value, *replicates = number(torch.randn(200, 3), torch.arange(200))
        held += abs(value - truth) <= half_width(replicates)
    assert 0.92 <= held / 400 <= 0.975  # 0.95 within 2.75 standard errors


def test_a_difference_on_the_same_images_is_known_better_than_either_number() -> None:
    hard = torch.randn(400)
    a, b = (hard + 0.1 * torch.randn(400) for _ in range(2))
    first, second = (rows(SplitMean(), x, torch.arange(400))[1:] for x in (a, b))
    assert half_width((first - second).tolist()) < 0.25 * half_width(first.tolist())


def test_equal_replicates_have_no_interval() -> None:
    """Their sum divided by their number is not always the number again."""
    replicates = [34.0 / 35.0] * GROUPS
    assert half_width(replicates) == 0.0
