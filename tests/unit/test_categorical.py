"""The softmax over 256 levels, and its likelihood."""

import pytest
import torch
from torch import Generator

from lit_vae.distributions import Categorical
from lit_vae.images import ImageSpec, from_uint8
from lit_vae.likelihoods import Categorical as CategoricalLikelihood

pytestmark = pytest.mark.usefixtures("float64")

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0


def test_log_prob_is_the_sum_of_each_values_log_softmax():
    logits = torch.randn(3, 256, 2, 4, 5)
    u = torch.randint(0, 256, (3, 2, 4, 5), dtype=torch.uint8)
    x = from_uint8(u).double()
    expected = torch.zeros(3)
    for b in range(3):
        for index in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(5)).tolist():
            c, i, j = index
            expected[b] += torch.log_softmax(logits[b, :, c, i, j], 0)[int(u[b, c, i, j])]
    torch.testing.assert_close(Categorical(logits).log_prob(x), expected)
    more = torch.randn(2, 3, 256, 2, 4, 5)  # two samples of each: x is broadcast
    torch.testing.assert_close(Categorical(more).log_prob(x)[1], Categorical(more[1]).log_prob(x))


def test_probabilities_of_all_levels_sum_to_one():
    logits = torch.randn(1, 256, 1, 1, 1).expand(256, -1, -1, -1, -1)
    assert Categorical(logits).log_prob(LEVELS.view(256, 1, 1, 1)).exp().sum().item() == pytest.approx(1.0)


def test_draws_are_levels_with_the_probabilities_and_the_mean():
    logits = 3.0 * torch.randn(256, 1, 1, 1)
    draws = Categorical(logits.expand(40_000, -1, -1, -1, -1)).sample(Generator().manual_seed(0)).flatten()
    levels = ((draws + 1.0) * 127.5).round()
    torch.testing.assert_close(draws, levels / 127.5 - 1.0)
    shares = torch.bincount(levels.long(), minlength=256) / 40_000
    torch.testing.assert_close(shares, logits.flatten().softmax(0), rtol=0, atol=0.01)
    mean = Categorical(logits[None]).mean.item()
    assert mean == pytest.approx(float((logits.flatten().softmax(0) * LEVELS).sum()))
    assert draws.mean().item() == pytest.approx(mean, abs=0.02)


def test_the_likelihood_orders_its_channels_level_by_level_and_has_bits():
    likelihood = CategoricalLikelihood()
    parameters = torch.randn(2, likelihood.num_parameters(3), 4, 4)
    logits = likelihood(parameters).logits
    assert logits.shape == (2, 256, 3, 4, 4)
    torch.testing.assert_close(logits[:, 7, 2], parameters[:, 7 * 3 + 2])
    spec = ImageSpec(3, 4, 4, 0, "uint8")
    uniform = -likelihood(torch.zeros(1, 768, 4, 4)).log_prob(torch.ones(1, 3, 4, 4))
    assert likelihood.bits_per_dim(uniform, spec).item() == pytest.approx(8.0)
    assert "turn dequantize and binarization off" in likelihood.problems(ImageSpec(3, 4, 4, 0, "binary"))[0]
