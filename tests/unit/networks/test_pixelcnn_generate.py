"""The sampling loop, and that the checks of autoregressive networks catch one that is none."""

import autoregressive_checks as checks
import pytest
import torch
from torch import Tensor, nn

from lit_vae.networks.autoregressive import Autoregressive, Incremental, generate
from lit_vae.networks.pixelcnn import GatedPixelCNN

pytestmark = pytest.mark.usefixtures("float64")


class Convolution(Autoregressive):
    """One 3 x 3 convolution whose kernel is zero from a given tap on: causal if that is tap 4 or less."""

    def __init__(self, in_channels: int, out_channels: int, grid: tuple[int, int], taps: int, cached: int = 4) -> None:
        super().__init__(in_channels, out_channels, grid)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 9))
        self.taps, self.cached = taps, cached

    def forward(self, h: Tensor, cond: Tensor | None = None, spatial: Tensor | None = None) -> Tensor:
        kernel = torch.where(torch.arange(9) < self.taps, self.weight, 0.0)
        return nn.functional.conv2d(h, kernel.unflatten(2, (3, 3)), padding=1)

    def incremental(self, batch: int, cond: Tensor | None = None, spatial: Tensor | None = None) -> Incremental:
        causal = Convolution(self.in_channels, self.out_channels, self.grid, self.cached)
        causal.load_state_dict(self.state_dict())
        return Recomputed(causal, batch)


class Recomputed(Incremental):
    """A full forward for each position."""

    def __init__(self, network: Convolution, batch: int) -> None:
        self.network, self.position = network, 0
        self.h = torch.zeros(batch, network.in_channels, *network.grid)

    def place(self) -> tuple[int, int]:
        if self.position == self.h[0, 0].numel():
            raise ValueError("all positions have been visited")
        return divmod(self.position, self.network.grid[1])

    def parameters(self) -> Tensor:
        row, column = self.place()
        return self.network(self.h)[:, :, row, column]

    def feed(self, h: Tensor) -> None:
        row, column = self.place()
        self.h[:, :, row, column] = h
        self.position += 1


def neighbours(i: checks.Position, j: checks.Position) -> bool:
    return max(abs(i[0] - j[0]), abs(i[1] - j[1])) <= 1


def test_checks_pass_a_causal_network():
    checks.check_causality(Convolution(2, 3, (3, 4), taps=4), neighbours)
    checks.check_sums_to_one(Convolution(1, 1, (2, 2), taps=4))
    checks.check_incremental_equals_forward(Convolution(2, 3, (3, 4), taps=4))
    checks.check_generate_equals_naive(Convolution(2, 3, (3, 4), taps=4))


def test_checks_catch_a_leak():
    with pytest.raises(AssertionError, match=r"\(0, 0\) depends on \(0, 0\)"):
        checks.check_causality(Convolution(2, 3, (3, 4), taps=5), neighbours)
    with pytest.raises(AssertionError, match="not close"):
        checks.check_sums_to_one(Convolution(1, 1, (2, 2), taps=5))


def test_checks_catch_a_position_that_is_not_seen():
    with pytest.raises(AssertionError, match=r"\(0, 2\) on \(0, 0\)"):
        checks.check_causality(Convolution(2, 3, (3, 4), taps=4))


def test_checks_catch_a_wrong_cache():
    with pytest.raises(AssertionError, match="not close"):
        checks.check_incremental_equals_forward(Convolution(2, 3, (3, 4), taps=4, cached=3))
    with pytest.raises(AssertionError):
        checks.check_generate_equals_naive(Convolution(2, 3, (3, 4), taps=4, cached=3), batch=8)


def network(**own: int) -> GatedPixelCNN:
    return checks.awake(GatedPixelCNN(2, 4, (3, 5), width=8, layers=2, kernel_size=3, head_width=8, **own))


def mean(parameters: Tensor) -> Tensor:
    """A value of two numbers at each position."""
    return parameters[:, :2]


def test_generate_stacks_values_over_the_grid():
    """A deterministic draw is a fixed point: forward of what was drawn gives what was drawn."""
    net = network()
    values = generate(net, mean, lambda value: value, 3)
    assert not values.requires_grad
    torch.testing.assert_close(values, net(values)[:, :2], rtol=1e-12, atol=1e-12)
    scalars = generate(net, lambda p: p.argmax(1), lambda code: torch.eye(4)[code, :2], 3)
    assert scalars.shape == (3, 3, 5)


def test_generate_restores_every_modules_mode_also_after_an_error():
    net = network(cond_dim=1).train()
    net.body[1].eval()  # a frozen part
    modes = [module.training for module in net.modules()]
    within = []

    def draw(parameters: Tensor) -> Tensor:
        within.append(torch.is_grad_enabled() or any(module.training for module in net.modules()))
        return mean(parameters)

    generate(net, draw, lambda value: value, 2, torch.randn(2, 1))
    assert not any(within)
    assert [module.training for module in net.modules()] == modes
    with pytest.raises(ValueError, match="no condition came"):
        generate(net, mean, lambda value: value, 2)
    assert [module.training for module in net.modules()] == modes


def test_generate_draws_in_evaluation_mode_and_in_the_precision_of_the_weights():
    torch.set_default_dtype(torch.float32)
    net = GatedPixelCNN(2, 4, (3, 5), width=8, layers=2, kernel_size=3, dropout=0.5, attention_every=1)
    expected = generate(net, mean, lambda value: value, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(generate(net, mean, lambda value: value, 2), expected)


def test_generate_tells_its_progress():
    calls = []
    generate(network(), mean, lambda value: value, 1, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 15) for done in range(1, 16)]
