"""The spectral penalty is the sum of exact largest singular values, and goes on from its buffers."""

import copy

import pytest
import torch
from torch import nn

from lit_vae.objectives import SpectralPenalty


def network():
    pair = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3))
    return nn.Sequential(pair, nn.Conv2d(6, 6, 5, groups=6), nn.Conv2d(4, 9, 1), nn.Linear(7, 7))


def kernels(net):
    return [net[0][0].weight, net[0][1].weight, net[1].weight, net[2].weight]


def built(net, **given):
    penalty = SpectralPenalty(**given)
    penalty.build(net)
    return penalty


def test_it_is_the_sum_of_the_largest_singular_values():
    net = network()
    penalty = built(net, weight=0.3, iterations=2000)
    singular = [torch.linalg.svdvals(kernel.flatten(1))[0] for kernel in kernels(net)]
    value, exact = penalty(net), 0.3 * sum(singular)
    torch.testing.assert_close(value, exact, rtol=1e-10, atol=0.0)
    for got, expected in zip(
        *(torch.autograd.grad(of, kernels(net)) for of in (value, exact)), strict=True
    ):  # the outer product of both singular vectors
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_its_vectors_follow_the_weights_and_never_exceed_them():
    net = network()
    penalty = built(net, weight=1.0, iterations=1)
    exact = sum(torch.linalg.svdvals(kernel.flatten(1))[0] for kernel in kernels(net))
    values = torch.stack([penalty(net).detach() for _ in range(300)])
    assert (values.diff() > -1e-12).all()
    assert values[0] < 0.99 * exact
    torch.testing.assert_close(values[-1], exact.detach(), rtol=1e-6, atol=0.0)


def test_a_kernel_that_starts_at_zero_is_penalised_once_it_is_not():
    net = nn.Conv2d(3, 4, 3)
    penalty = built(net, weight=1.0, iterations=500)
    weight = net.weight.detach().clone()
    nn.init.zeros_(net.weight)
    assert penalty(net) == 0.0
    with torch.no_grad():
        net.weight.copy_(weight)
    torch.testing.assert_close(penalty(net), torch.linalg.svdvals(weight.flatten(1))[0], rtol=1e-10, atol=0.0)


def test_a_resumed_penalty_goes_on_with_the_same_vectors():
    net = network()
    first = built(net, iterations=1)
    fresh = copy.deepcopy(first)
    for _ in range(3):
        first(net)
    resumed = built(net, iterations=1)
    resumed.load_state_dict(first.state_dict())
    expected = first(net)
    assert torch.equal(resumed(net), expected)
    assert not torch.equal(fresh(net), expected)


def test_a_network_without_convolutions():
    with pytest.raises(ValueError) as error:
        built(nn.Linear(2, 2))
    assert str(error.value) == ("SpectralPenalty: Linear has no convolutions. Set model.init_args.spectral: null.")
