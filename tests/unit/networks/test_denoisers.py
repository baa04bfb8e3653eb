"""What every denoising network keeps: its start, its condition, its batches, dtypes, memory formats and compilation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks import DiT, UNet

SHAPE, CLASSES = (3, 8, 12), 4
TINY: dict[type[nn.Module], dict[str, Any]] = {
    UNet: {"patch": 2, "width": 8, "blocks": 1, "attention": [4], "fourier": [6]},
    DiT: {"patch": 2, "width": 8, "layers": 2, "heads": 2, "mlp_ratio": 2.0},
}
NETWORKS = pytest.mark.parametrize("kind", TINY, ids=lambda kind: kind.__name__)

pytestmark = pytest.mark.usefixtures("float64")


def awake(kind: type[nn.Module], cond_dim: int = CLASSES, **init_args: Any) -> nn.Module:
    """A network whose zeros are gone, so that every layer matters."""
    torch.manual_seed(1)
    network = kind(SHAPE, cond_dim, **TINY[kind], **init_args)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(2)
    cond = F.one_hot(torch.arange(batch) % CLASSES, CLASSES).to(torch.float64)
    return torch.randn(batch, *SHAPE), torch.linspace(-9.0, 5.0, batch), cond


def gradients(network: Callable[..., Tensor], parameters: list[Tensor], *given: Tensor) -> tuple[Tensor, ...]:
    y = network(*given)
    return y, *torch.autograd.grad((y * torch.linspace(-1.0, 1.0, y.numel()).view_as(y)).sum(), parameters)


@NETWORKS
def test_the_output_is_zero_at_the_start_and_learns(kind):
    network = kind(SHAPE, CLASSES, **TINY[kind])
    z, lam, cond = inputs()
    y = network(z, lam, cond)
    assert y.shape == z.shape
    assert (y == 0.0).all()
    parameters = dict(network.named_parameters())
    before = {name: parameter.clone() for name, parameter in parameters.items()}
    for _ in range(4):  # the layers that start at zero wake up one after another
        loss = (network(z, lam, cond) - z).square().mean()
        found = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), found, strict=True):
                parameter.sub_(0.1 * gradient)
    still = {name for name, parameter in parameters.items() if torch.equal(parameter, before[name])}
    assert all(name.endswith("attention.key.bias") for name in still)  # a softmax does not hear it
    assert (network(z, lam, cond) - z).square().mean() < z.square().mean()


@NETWORKS
def test_state_clock_and_class_are_heard_everywhere(kind):
    network = awake(kind)
    z, lam, cond = inputs()
    y = network(z, lam, cond)
    moved = z.clone()
    moved[..., 0, 0] += 1.0
    for other in (network(moved, lam, cond), network(z, lam + 0.1, cond), network(z, lam, cond.roll(1, 1))):
        assert ((other - y).abs() > 1e-9).all()


@NETWORKS
def test_an_image_alone_has_the_numbers_that_it_has_in_a_batch_in_training_too(kind):
    network, given = awake(kind), inputs()
    together = network(*given)
    for index in range(len(together)):
        alone = network(*(each[index : index + 1] for each in given))
        torch.testing.assert_close(alone[0], together[index], rtol=1e-12, atol=1e-12)


@NETWORKS
def test_without_a_condition(kind):
    z, lam, cond = inputs()
    network = awake(kind, 0)
    assert network(z, lam).shape == z.shape
    with pytest.raises(ValueError, match=r"built with cond_dim \(=0\), but a condition of 4 numbers came"):
        network(z, lam, cond)
    with pytest.raises(ValueError, match=r"built with cond_dim \(=4\), but no condition came"):
        awake(kind)(z, lam)


@NETWORKS
def test_checkpointing_keeps_less_and_changes_no_number(kind):
    found, kept = [], []
    for checkpointing in (False, True):
        network = awake(kind, checkpointing=checkpointing)
        sizes: list[int] = []

        def keep(saved: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(saved.numel())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            found.append(gradients(network, list(network.parameters()), *inputs()))
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=0.0, atol=0.0)


@NETWORKS
def test_channels_last_gives_the_same_numbers(kind):
    network, (z, lam, cond) = awake(kind), inputs()
    expected = network(z, lam, cond)
    actual = network.to(memory_format=torch.channels_last)(z.to(memory_format=torch.channels_last), lam, cond)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@NETWORKS
def test_single_and_half_precision_are_near_the_exact_numbers(kind):
    network, (z, lam, cond) = awake(kind), inputs()
    exact = network(z, lam, cond)
    single = network.float()
    y = single(z.float(), lam, cond)  # the clock may stay in float64
    torch.testing.assert_close(y, exact.float(), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = single(z.float(), lam.float(), cond.float())
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.slow  # the compiler's time
@NETWORKS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_of_training_is_one_graph(kind, checkpointing):
    network = awake(kind, checkpointing=checkpointing).train()
    parameters = list(network.parameters())
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    found = gradients(compiled, parameters, *inputs())
    for value, expected in zip(found, gradients(network, parameters, *inputs()), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
