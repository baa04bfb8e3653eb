"""A flow that is fitted to latents: what it reaches, what it sees, and which files it refuses."""

import math

import pytest
import torch
from torch import distributions as td

from lit_vae.tools.priors.flow import FittedFlow

COVARIANCE = torch.tensor([[2.0, 1.2], [1.2, 0.9]], dtype=torch.float64)
MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)
NOBODY = torch.full((2000,), -1)


def gaussian(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn(2000, 2, dtype=torch.float64, generator=generator)
    return MEAN + eps @ torch.linalg.cholesky(COVARIANCE).T, NOBODY


def by_label(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """N(5 y, 1) in one dimension for the labels 0 and 1."""
    y = torch.arange(2000) % 2
    eps = torch.randn(2000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 5.0 * y[:, None] + eps, y


@pytest.fixture(scope="module")
def fitted() -> FittedFlow:
    return FittedFlow.fit(gaussian, 0, 60, 0)


def test_it_reaches_the_entropy_of_fresh_draws_and_draws_the_same_moments(fitted):
    entropy = td.MultivariateNormal(MEAN, COVARIANCE).entropy()
    z, y = gaussian(10**6)
    assert -fitted.log_prob(z, y).mean().item() == pytest.approx(entropy.item(), abs=0.08)
    draws = fitted.sample(NOBODY, 1.0, 0)
    torch.testing.assert_close(draws.mean(0), MEAN, rtol=0, atol=0.15)
    torch.testing.assert_close(draws.T.cov(), COVARIANCE, rtol=0, atol=0.3)
    assert fitted.sample(NOBODY, 0.0, 0).std(0).max() < 1e-12


def test_its_density_integrates_to_one_in_the_scale_of_the_latents(fitted):
    a, b = torch.linspace(-6.0, 12.0, 120), torch.linspace(-8.0, 6.0, 120)
    density = fitted.log_prob(torch.cartesian_prod(a, b), torch.full((14_400,), -1)).exp()
    assert (density.sum() * (a[1] - a[0]) * (b[1] - b[0])).item() == pytest.approx(1.0, abs=2e-3)


def test_every_epoch_sees_other_draws():
    seen = []
    FittedFlow.fit(lambda seed: (seen.append(seed), gaussian(seed))[1], 0, 20, 5)  # 8 batches an epoch
    assert seen == [5, 6, 7]


def test_each_label_has_a_density_of_its_own():
    flow = FittedFlow.fit(by_label, 2, 60, 0)
    assert flow.size == (2, 1)
    z, y = by_label(10**6)
    right, wrong = (flow.log_prob(z, labels).mean().item() for labels in (y, 1 - y))
    assert right == pytest.approx(-0.5 * math.log(2.0 * math.pi * math.e), abs=0.1)
    assert wrong < right - 3.0


def test_a_file_gives_back_the_same_density_and_a_damaged_one_is_refused(fitted):
    state = fitted.state()
    z, y = gaussian(1)
    assert torch.equal(FittedFlow.of(state).log_prob(z, y), fitted.log_prob(z, y))
    damages = {
        "mean, std or weights are missing": {"mean": None},
        "do not fit each other": {"std": torch.ones(3)},
        "its weights are of another flow": {"weights": {}},
        "a scale that is not positive": {"std": torch.zeros(2)},
        "numbers that are not finite": {"mean": torch.tensor([math.nan, 0.0])},
    }
    for said, damage in damages.items():
        with pytest.raises(ValueError, match=said):
            FittedFlow.of({**state, **damage})


def test_a_latent_that_is_too_large_is_refused():
    with pytest.raises(ValueError) as error:
        FittedFlow.fit(lambda _: (torch.zeros(4, 2000), NOBODY[:4]), 0, 1, 0)
    assert str(error.value) == (
        "lit-vae fit-prior: --prior flow: the latent has 2000 dimensions, flattened, and a flow takes at most 1024."
        " Give --prior gmm --covariance diag."
    )
