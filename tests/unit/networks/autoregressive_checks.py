"""What holds for every autoregressive network; each check takes one, with whatever conditions it was built for."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_vae.networks.autoregressive import Autoregressive, generate

Position = tuple[int, int]


def awake(network: Autoregressive) -> Autoregressive:
    """Evaluation mode, and some weight for the layers that start at zero, as training gives them."""
    for parameter in network.parameters():
        if (parameter == 0.0).all():
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


def conditions(network: Autoregressive, batch: int) -> tuple[Tensor | None, Tensor | None]:
    """Random ``cond`` and ``spatial`` of the shapes that the network was built for."""
    cond = torch.randn(batch, network.cond_dim) if network.cond_dim else None
    channels = network.spatial_channels
    return cond, torch.randn(batch, channels, *network.grid) if channels else None


def jacobian(output: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Absolute gradients of each number in ``output (P,)``, the largest over P, in the shape of each input."""
    grads = [torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True) for value in output]
    return [torch.stack([g.abs() for g in each]).amax(0) for each in zip(*grads, strict=True)]


def check_causality(network: Autoregressive, sees: Callable[[Position, Position], bool] = lambda i, j: True) -> None:
    """Output i depends on input j not at all for j >= i, and for j < i wherever ``sees(i, j)``; and on the conditions.

    Without ``sees``, every earlier position must be seen: there is no blind spot.
    """
    awake(network)
    h = torch.randn(1, network.in_channels, *network.grid, requires_grad=True)
    cond, spatial = conditions(network, 1)
    given = [c.requires_grad_() for c in (cond, spatial) if c is not None]
    out = network(h, cond, spatial)
    assert out.shape == (1, network.out_channels, *network.grid)
    positions = list(itertools.product(*map(range, network.grid)))
    for i in positions:
        by_h, *by_given = jacobian(out[0, :, i[0], i[1]], h, *given)
        by_position = by_h[0].amax(0)
        for j in positions:
            if j >= i:
                assert by_position[j] == 0.0, f"{i} depends on {j}"
            else:
                assert (by_position[j] > 0.0) == sees(i, j), f"{i} on {j}: {by_position[j]}"
        for grad in by_given:
            at_i = grad if grad.ndim == 2 else grad[:, :, i[0], i[1]]
            assert (at_i > 0.0).all(), f"{i} does not depend on its condition"


def check_sums_to_one(network: Autoregressive) -> None:
    """The probabilities of all images of {-1, 1} sum to 1, for a small grid with one channel in and out."""
    awake(network)
    height, width = network.grid
    images = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=height * width))).view(-1, 1, height, width)
    cond, spatial = (None if c is None else c.expand(len(images), *c.shape[1:]) for c in conditions(network, 1))
    with torch.no_grad():
        log_prob = nn.functional.logsigmoid(images * network(images, cond, spatial)).sum((1, 2, 3))
    assert log_prob.std() > 0.01  # not the uniform distribution, which sums to one whatever depends on what
    torch.testing.assert_close(log_prob.exp().sum(), torch.tensor(1.0), rtol=1e-12, atol=1e-12)


def check_incremental_equals_forward(network: Autoregressive, batch: int = 3, tolerance: float = 1e-12) -> None:
    """Fed the same input, position by position, it answers the same; and it says when there is no position left."""
    awake(network)
    dtype = next(network.parameters()).dtype
    h = torch.randn(batch, network.in_channels, *network.grid, dtype=dtype)
    cond, spatial = (None if c is None else c.to(dtype) for c in conditions(network, batch))
    with torch.no_grad():
        expected = network(h, cond, spatial)
        incremental = network.incremental(batch, cond, spatial)
        for row, column in itertools.product(*map(range, network.grid)):
            first = incremental.parameters().clone()
            torch.testing.assert_close(first, expected[:, :, row, column], rtol=tolerance, atol=tolerance)
            assert torch.equal(incremental.parameters(), first)
            incremental.feed(h[:, :, row, column])
        with pytest.raises(ValueError, match="have been visited"):
            incremental.parameters()
        with pytest.raises(ValueError, match="have been visited"):
            incremental.feed(h[:, :, 0, 0])


def check_generate_equals_naive(network: Autoregressive, batch: int = 2) -> None:
    """Codes drawn with the cache are those of a full forward for each position, given the same uniform numbers."""
    awake(network)
    height, width = network.grid
    table = torch.randn(network.out_channels, network.in_channels)
    uniforms = torch.rand(height * width, batch, 1)
    cond, spatial = conditions(network, batch)

    def draw(parameters: Tensor, uniform: Tensor) -> Tensor:
        return (parameters.softmax(1).cumsum(1) < uniform).sum(1).clamp_(max=network.out_channels - 1)

    codes = torch.zeros(batch, height, width, dtype=torch.long)
    with torch.no_grad():
        for index, (row, column) in enumerate(itertools.product(range(height), range(width))):
            parameters = network(table[codes].permute(0, 3, 1, 2), cond, spatial)[:, :, row, column]
            codes[:, row, column] = draw(parameters, uniforms[index])

    each = iter(uniforms)
    drawn = generate(network, lambda p: draw(p, next(each)), lambda code: table[code], batch, cond, spatial)
    assert torch.equal(drawn, codes)
    assert len(drawn.unique()) > 1


def check_conditions_are_required(network: Autoregressive) -> None:
    """A condition that is missing, was not asked for, or has another shape is an error, of forward and of the cache."""
    batch = 2
    h = torch.randn(batch, network.in_channels, *network.grid)
    given = dict(zip(("cond", "spatial"), conditions(network, batch), strict=True))
    built = {"cond": f"cond_dim (={network.cond_dim})", "spatial": f"spatial_channels (={network.spatial_channels})"}
    for name, value in given.items():
        shape = (batch, 5) if name == "cond" else (batch, 5, *network.grid)
        wrong = [torch.randn(shape)] if value is None else [None, value[:, :-1], value[:1]]
        for instead in wrong:
            for call in (lambda **c: network(h, **c), lambda **c: network.incremental(batch, **c)):
                with pytest.raises(ValueError) as error:
                    call(**{**given, name: instead})
                came = f"but no {'spatial ' * (name == 'spatial')}condition came"
                if instead is not None:
                    came = f"condition of shape {tuple(instead.shape)} came"
                assert f"{type(network).__name__}: built with {built[name]}, but" in str(error.value)
                assert came in str(error.value)
    with pytest.raises(ValueError, match=rf"built with in_channels \(={network.in_channels}\) and grid"):
        network(h[..., :-1], **given)
