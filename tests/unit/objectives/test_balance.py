"""The balance of levels: NVAE's weights, in warm-up only, and never in a reported number."""

import pytest
import torch

from lit_vae.distributions import DiagonalGaussian
from lit_vae.objectives import ELBO, KLBalance, Level
from lit_vae.schedules import LinearWarmup

pytestmark = pytest.mark.usefixtures("float64")
SHAPES = [(2, 1, 1), (3, 2, 2), (3, 2, 2)]
X = torch.zeros(5, 1, 1, 1)


def levels():
    torch.manual_seed(0)
    made = []
    for number, shape in enumerate(SHAPES):
        q = DiagonalGaussian((number + torch.randn(1, 5, *shape)).requires_grad_(), torch.zeros(1, 5, *shape), 3)
        p = DiagonalGaussian(torch.zeros(1, 5, *shape), torch.zeros(1, 5, *shape), 3)
        made.append(Level(q, p, q.rsample(1)))
    return made


def terms(objective, step, of):
    return objective(X, of, DiagonalGaussian(X[None], torch.zeros(()), 3), step).terms


def by_hand(of):
    kl = torch.stack([level.rate().mean() for level in of]).detach()
    unscaled = (kl + 0.01) / torch.tensor([1.0, 2.0, 2.0])  # 1 position and 1 level; 4 positions and 2 levels, twice
    return unscaled / unscaled.mean()


def test_the_weights_are_nvaes():
    weights = KLBalance().weights([level.rate() for level in levels()], SHAPES)
    torch.testing.assert_close(weights, by_hand(levels()))
    assert weights.mean().item() == pytest.approx(1.0)
    assert not weights.requires_grad
    drawn = KLBalance().weights([torch.tensor([-3.0, 3.0]), torch.ones(2)], [(1, 1, 1), (1, 2, 2)])
    torch.testing.assert_close(
        drawn[0] / drawn[1], torch.tensor(3.01 / 1.01 * 4.0)
    )  # log-ratios that cancel are no rate of 0
    dead = KLBalance().weights([torch.zeros(5), torch.ones(5), torch.ones(5)], SHAPES)
    assert 0.0 < dead[0] < 0.1


def test_the_loss_has_the_weights_in_warm_up_only():
    objective = ELBO(LinearWarmup(10), balance=KLBalance())
    of = levels()
    found = terms(objective, 5, of)
    expected = 0.5 * sum(g * level.rate() for g, level in zip(by_hand(of), of, strict=True)) + found["distortion"]
    torch.testing.assert_close(found["loss"], expected)
    for step in (10, 11, None):
        torch.testing.assert_close(terms(objective, step, of)["loss"], terms(ELBO(), step, of)["loss"], rtol=0, atol=0)


def test_no_reported_number_has_the_weights():
    found, plain = (terms(ELBO(LinearWarmup(10), balance=b), 5, levels()) for b in (KLBalance(), None))
    for name in ("elbo", "rate", "distortion", "rate_0", "rate_1", "rate_2"):
        torch.testing.assert_close(found[name], plain[name], rtol=0, atol=0)


def test_the_gradient_of_a_level_is_scaled_by_its_weight():
    of = levels()
    loss = terms(ELBO(LinearWarmup(10), balance=KLBalance()), 5, of)["loss"].mean()
    for g, level in zip(by_hand(of), of, strict=True):
        (got,) = torch.autograd.grad(loss, level.posterior.mean, retain_graph=True)
        torch.testing.assert_close(got, 0.5 * g * level.posterior.mean / 5)


def test_without_a_warm_up_or_with_free_bits_it_is_refused():
    (problem,) = ELBO(1.0, balance=KLBalance()).problems(3)
    assert problem.startswith("ELBO: balance acts while beta rises, but beta (=1) is constant.")
    (problem,) = ELBO(LinearWarmup(10), 0.5, balance=KLBalance()).problems(3)
    assert problem.startswith("ELBO: balance and free_bits both change the rate of a level.")
    assert ELBO(LinearWarmup(10), balance=KLBalance()).problems(3) == []
