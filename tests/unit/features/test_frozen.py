"""A frozen network is no part of the model that owns it, and still goes where the model goes."""

import copy

import pytest
import torch
from torch import nn

from lit_vae.features import Frozen
from lit_vae.features.base import EPS, unit_length


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(2, 2)
        self.frozen = Frozen(small_network)


@pytest.fixture
def owner() -> Owner:
    torch.manual_seed(0)
    return Owner()


@pytest.mark.parametrize("built", [False, True], ids=["not built yet", "built"])
def test_it_is_in_nothing_that_a_trainer_looks_at(owner: Owner, built: bool) -> None:
    if built:
        _ = owner.frozen.network
    assert {name for name, _ in owner.named_parameters()} == {"own.weight", "own.bias"}
    assert set(owner.state_dict()) == {"own.weight", "own.bias"}
    assert not list(owner.buffers())
    owner.load_state_dict(Owner().state_dict())


def test_it_stays_in_eval_and_takes_no_gradient(owner: Owner) -> None:
    network = owner.frozen.network
    before = copy.deepcopy(network.state_dict())
    owner.train().requires_grad_(True)
    assert not any(module.training for module in network.modules())
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    assert torch.equal(owner.frozen(x), owner.frozen(x))  # no dropout
    owner.frozen(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("built", [False, True], ids=["not built yet", "built"])
def test_it_follows_its_owner(owner: Owner, built: bool) -> None:
    if built:
        _ = owner.frozen.network
    owner.double()
    assert {p.dtype for p in owner.frozen.network.parameters()} == {torch.float64}
    owner.to("meta")
    assert {p.device.type for p in owner.frozen.network.parameters()} == {"meta"}


def test_a_deep_copy_shares_it(owner: Owner) -> None:
    twin = copy.deepcopy(owner)
    assert twin.own.weight is not owner.own.weight
    assert twin.frozen.network is owner.frozen.network


def test_it_is_built_once_when_needed_and_draws_no_random_number() -> None:
    made = []

    def make() -> nn.Module:
        made.append(small_network())
        return made[-1]

    frozen = Frozen(make)
    assert not made
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert frozen.network is frozen.network is made[0]
    assert len(made) == 1
    assert torch.equal(torch.rand(3), expected)


def test_a_first_use_in_inference_mode_does_not_spoil_it_for_training(owner: Owner) -> None:
    with torch.inference_mode():
        owner.frozen(torch.randn(1, 1, 8, 8))
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    owner.frozen(x).square().sum().backward()
    assert x.grad is not None


def test_unit_length_has_a_finite_gradient_at_zero(float64: None) -> None:
    h = torch.randn(2, 5, 3, 3)
    h[0, :, 1, 1] = 0.0
    h.requires_grad_()
    unit = unit_length(h)
    length = unit.norm(dim=1)
    assert length[0, 1, 1] == 0.0
    torch.testing.assert_close(length[1], torch.ones(3, 3), rtol=1e-6, atol=0)
    torch.testing.assert_close(unit[1], (h / (h.square().sum(1, keepdim=True) + EPS).sqrt())[1])
    unit.sum().backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()


def test_unit_length_of_half_precision_is_in_float32() -> None:
    h = torch.full((1, 512, 1, 1), 300.0, dtype=torch.float16)  # whose squares overflow
    assert unit_length(h).dtype == torch.float32
    torch.testing.assert_close(unit_length(h), torch.full((1, 512, 1, 1), 512**-0.5))
