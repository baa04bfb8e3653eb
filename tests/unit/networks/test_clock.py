"""What denoising networks are told of the noise level and the class."""

import pytest
import torch
import torch.nn.functional as F

from lit_vae.networks.clock import ClockEmbedding, clock_features

EVERYWHERE = torch.linspace(-20.0, 20.0, 401)  # 0.1 apart


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clocks_a_tenth_apart_differ_clearly_over_the_whole_range(dtype):
    features = clock_features(EVERYWHERE.to(dtype))
    assert features.dtype == dtype
    distances = torch.cdist(features, features)
    assert distances[~torch.eye(401, dtype=torch.bool)].min() > 0.1 * features.norm(dim=1).mean()
    order = features[:, 128]  # the slowest sine
    assert (order.diff() > 0.0).all()


def test_autocast_does_not_round_the_clock():
    torch.manual_seed(0)
    embedding = ClockEmbedding(32, 3)
    lam, cond = EVERYWHERE[:4], F.one_hot(torch.tensor([0, 1, 2, 2]), 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = embedding(lam, cond)
    torch.testing.assert_close(rounded, embedding(lam, cond), rtol=0.0, atol=0.0)


@pytest.mark.usefixtures("float64")
def test_the_vector_is_that_of_clock_and_class_added_between_two_layers_and_a_nonlinearity():
    embedding = ClockEmbedding(8, 3)
    lam, classes = torch.tensor([-3.0, 7.5]), torch.tensor([2, 0])
    exponents = torch.arange(128) / 127.0
    phases = lam[:, None] * 0.05 * 200.0**exponents
    expected = embedding.out(F.silu(embedding.hidden(torch.cat([phases.cos(), phases.sin()], 1))))
    expected = F.silu(expected + embedding.cond.weight[:, classes].T)
    torch.testing.assert_close(embedding(lam, F.one_hot(classes, 3)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("cond_dim", "cond", "given"),
    [
        (3, None, "built with cond_dim (=3), but no condition came."),
        (0, torch.zeros(1, 5), "built with cond_dim (=0), but a condition of 5 numbers came."),
    ],
)
def test_a_condition_that_is_missing_or_not_expected(cond_dim, cond, given):
    with pytest.raises(ValueError) as error:
        ClockEmbedding(4, cond_dim)(torch.zeros(1), cond)
    assert str(error.value) == f"ClockEmbedding: {given}"
