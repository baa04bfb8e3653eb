"""Aggregate posteriors against cases whose answer is known."""

import math

import pytest
import torch

from lit_vae.distributions import DiagonalGaussian
from lit_vae.metrics import latents
from lit_vae.metrics.latents import PosteriorStatistics, active_units, log_aggregate_posterior, summarize_posteriors


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_posterior_that_is_the_prior_says_nothing():
    summary = summarize_posteriors(torch.zeros(50, 3), torch.zeros(50, 3))
    torch.testing.assert_close(summary.kl_per_dim, torch.zeros(3, dtype=torch.float64), rtol=0, atol=0)
    assert summary.active_units == 0
    assert summary.mutual_information == pytest.approx(0.0, abs=1e-12)
    assert summary.aggregate_kl == pytest.approx(0.0, abs=1e-12)


def test_posteriors_that_tell_all_images_apart_have_log_n_nats():
    summary = summarize_posteriors(100.0 * torch.arange(64.0).unsqueeze(1) + torch.zeros(64, 2), torch.zeros(64, 2))
    assert summary.mutual_information == pytest.approx(math.log(64), abs=1e-9)  # of terms of 1e7
    assert summary.standard_error == pytest.approx(0.0, abs=1e-9)


def test_where_the_aggregate_is_the_prior_exactly():
    """Means ~ N(0, 1 - s^2) and variance s^2 make q(z) = N(0, 1): I = -log s a dimension, KL(q(z) || p) = 0.

    With a finite number N of images q(z) is a mixture, whose KL to the prior is positive, but of order 1 / N where the
    posteriors are this wide: well below the standard error, of order 1 / sqrt(N).
    """
    std = torch.tensor([0.5, 0.8], dtype=torch.float64)
    n = 4_000
    means = (1.0 - std.square()).sqrt() * randn(n, 2)
    summary = summarize_posteriors(means, std.log().mul(2.0).expand(n, 2))
    information = -std.log().sum()
    rate_error = (means.square() / 2.0).sum(1).std() / math.sqrt(n)  # of the sampled means
    assert abs(summary.mutual_information - information) < 4.0 * summary.standard_error
    assert abs(summary.aggregate_kl) < 4.0 * math.hypot(summary.standard_error, rate_error)
    assert summary.active_units == 2


def test_information_and_aggregate_kl_add_up_to_the_rate():
    means, log_vars = 2.0 * randn(300, 4), randn(300, 4, seed=1)
    summary = summarize_posteriors(means, log_vars)
    rate = DiagonalGaussian(means, log_vars).kl()
    torch.testing.assert_close(summary.mutual_information + summary.aggregate_kl, rate.mean())
    torch.testing.assert_close(summary.kl_per_dim, DiagonalGaussian(means, log_vars).kl_per_dim().mean(0))
    assert 0.0 < summary.mutual_information <= math.log(300)


def test_the_aggregate_is_the_mixture_and_chunks_change_nothing(monkeypatch):
    u, means, log_vars = 3.0 * randn(40, 3), 5.0 + randn(30, 3, seed=1), 2.0 * randn(30, 3, seed=2)
    components = torch.distributions.Normal(means, (0.5 * log_vars).exp()).log_prob(u.unsqueeze(1)).sum(-1)
    expected = components.logsumexp(1) - math.log(30)
    torch.testing.assert_close(log_aggregate_posterior(u, means, log_vars), expected)
    monkeypatch.setattr(latents, "CHUNK_ELEMENTS", 70)  # two rows at a time
    torch.testing.assert_close(log_aggregate_posterior(u, means, log_vars), expected)


def test_narrow_posteriors_far_from_zero_lose_no_digits():
    means, log_vars = 1e3 + randn(20, 2), torch.full((20, 2), math.log(1e-8), dtype=torch.float64)
    u = means + 1e-4 * randn(20, 2, seed=3)
    components = torch.distributions.Normal(means, 1e-4).log_prob(u.unsqueeze(1)).sum(-1)
    expected = components.logsumexp(1) - math.log(20)
    torch.testing.assert_close(log_aggregate_posterior(u, means, log_vars), expected, rtol=0, atol=1e-5)


def test_active_units_count_the_variance_of_the_means_over_the_data():
    scale = torch.tensor([0.0, 0.09, 0.11, 3.0], dtype=torch.float64)
    means = 7.0 + scale * torch.tensor([[-1.0], [1.0]]).double()  # variance scale^2
    assert active_units(means) == 2
    assert active_units(means, threshold=0.005) == 3


def test_a_prior_of_each_class_is_taken_out():
    """The same noise around another prior for each class: nothing changes."""
    means, log_vars, y = randn(90, 3), randn(90, 3, seed=1), torch.arange(90) % 4
    shift, log_scale = 10.0 * randn(4, 3, seed=2), randn(4, 3, seed=3)
    plain, moved = PosteriorStatistics(), PosteriorStatistics()
    plain.update(DiagonalGaussian(means, log_vars), DiagonalGaussian(torch.zeros(90, 3), torch.zeros(90, 3)))
    prior = DiagonalGaussian(shift[y], 2.0 * log_scale[y])
    moved.update(DiagonalGaussian(prior.mean + prior.std * means, log_vars + prior.log_var), prior)
    for name, value in plain.compute()._asdict().items():
        torch.testing.assert_close(moved.compute()._asdict()[name], value, msg=name)


def test_batches_and_their_order_change_nothing():
    means, log_vars = randn(50, 2, 2, 1), randn(50, 2, 2, 1, seed=1)

    def summarise(*batches):
        metric = PosteriorStatistics()
        for index in batches:
            prior = torch.zeros(len(index), 2, 2, 1)
            metric.update(DiagonalGaussian(means[index], log_vars[index]), DiagonalGaussian(prior, prior))
        return metric.compute()

    order = torch.arange(50)
    whole, parts = summarise(order), summarise(*order.flip(0).split(7))
    for name, value in whole._asdict().items():
        torch.testing.assert_close(parts._asdict()[name], value, rtol=1e-12, atol=1e-12, msg=name)


def test_only_the_first_images_are_taken():
    means, zeros = randn(30, 2), torch.zeros(30, 2)
    metric = PosteriorStatistics(max_images=20)
    for index in torch.arange(30).split(8):
        metric.update(DiagonalGaussian(means[index], zeros[index]), DiagonalGaussian(zeros[index], zeros[index]))
    expected = summarize_posteriors(means[:20], zeros[:20])
    assert metric.compute().num_images == 20
    torch.testing.assert_close(metric.compute().mutual_information, expected.mutual_information)


def test_errors():
    with pytest.raises(ValueError, match=r"PosteriorStatistics: max_images \(=1\) must be at least 2"):
        PosteriorStatistics(1)
    metric = PosteriorStatistics()
    zeros = torch.zeros(2, 1)
    metric.update(DiagonalGaussian(zeros, zeros), DiagonalGaussian(zeros, zeros))
    metric.reset()
    with (
        pytest.raises(ValueError, match="PosteriorStatistics: compute was called before any update"),
        pytest.warns(UserWarning, match="was called before the ``update`` method"),
    ):
        metric.compute()


def test_posteriors_of_next_to_no_width_hold_all_the_information_there_is():
    """Without a KL term posteriors shrink towards points: I_q is then log N, and no square may cancel."""
    means = 30.0 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_vars = torch.linspace(-80.0, -10.0, 200, dtype=torch.float64).unsqueeze(1).expand(200, 2)
    summary = summarize_posteriors(means, log_vars)
    assert summary.mutual_information.item() == pytest.approx(math.log(200), abs=1e-6)
    assert summary.aggregate_kl.item() == pytest.approx(summary.kl_per_dim.sum().item() - math.log(200), abs=1e-6)


def test_narrow_and_wide_posteriors_agree_with_the_mixture_density():
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    log_vars = torch.cat([torch.full((15, 3), -40.0), torch.full((15, 3), -1.0)]).double()
    u = means + torch.exp(0.5 * log_vars) * torch.randn(30, 3, generator=generator, dtype=torch.float64)
    components = torch.distributions.Independent(torch.distributions.Normal(means, torch.exp(0.5 * log_vars)), 1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(30).double()), components
    )
    torch.testing.assert_close(log_aggregate_posterior(u, means, log_vars), mixture.log_prob(u), rtol=1e-12, atol=1e-9)
