"""Base class of autoregressive networks, and the loop that samples from them.

The positions of a grid are visited in raster order: row by row, each from left to right.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Incremental(ABC):
    """Visits the positions one by one: get `parameters` of the next position, draw there, and `feed` the draw.

    It gives the outputs of ``forward`` at the cost of one position instead of all. `Autoregressive.incremental` makes
    it in evaluation mode and without gradients. Both methods raise a ValueError after the last position.
    """

    @abstractmethod
    def parameters(self) -> Tensor:
        """Output at the next position, ``(B, out_channels)``; the same until the next `feed`."""

    @abstractmethod
    def feed(self, h: Tensor) -> None:
        """Set the input at this position, ``(B, in_channels)``, and move to the next."""


class Autoregressive(nn.Module, ABC):
    """A network whose output at a position depends on its input at earlier positions only.

    ``h (B, in_channels, H, W), cond (B, cond_dim) or None, spatial (B, spatial_channels, H, W) or None
    -> (B, out_channels, H, W)``.

    The output at position i depends on ``h`` before i in raster order (not at i), and on all of ``cond`` and
    ``spatial``. By the chain rule, a distribution of the value at i given the output at i, such as a softmax, defines
    an exact joint distribution.

    Args:
        in_channels: channels of the embedded values.
        out_channels: number of parameters of the distribution at one position.
        grid: ``(H, W)``.
        cond_dim: dimension of a condition; 0 for none.
        spatial_channels: channels of a condition with one vector per position; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid: tuple[int, int],
        cond_dim: int = 0,
        spatial_channels: int = 0,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.grid = grid
        self.cond_dim = cond_dim
        self.spatial_channels = spatial_channels

    @abstractmethod
    def forward(self, h: Tensor, cond: Tensor | None = None, spatial: Tensor | None = None) -> Tensor:
        """See the class."""

    @abstractmethod
    def incremental(self, batch: int, cond: Tensor | None = None, spatial: Tensor | None = None) -> Incremental:
        """The network at its first position, for ``batch`` images, with dtype and device of the weights.

        Call it in evaluation mode and under ``torch.no_grad()``, as `generate` does.
        """

    def check_shapes(self, batch: int, cond: Tensor | None, spatial: Tensor | None, h: Tensor | None = None) -> None:
        """Raise a ValueError for an input of another shape, which would be ignored or broadcast."""
        inputs = [
            ("cond_dim", self.cond_dim, "condition", cond, (batch, self.cond_dim)),
            ("spatial_channels", self.spatial_channels, "spatial condition", spatial,
             (batch, self.spatial_channels, *self.grid)),
        ]  # fmt: skip
        for argument, built, name, given, shape in inputs:
            if (given is not None) != bool(built) or (given is not None and given.shape != shape):
                came = f"no {name}" if given is None else f"a {name} of shape {tuple(given.shape)}"
                expected = f" Expected {shape}." if built else ""
                raise ValueError(f"{type(self).__name__}: built with {argument} (={built}), but {came} came.{expected}")
        expected_h = (batch, self.in_channels, *self.grid)
        if h is not None and h.shape != expected_h:
            raise ValueError(
                f"{type(self).__name__}: built with in_channels (={self.in_channels}) and grid (={self.grid}), but an"
                f" input of shape {tuple(h.shape)} came. Expected {expected_h}."
            )


AutoregressiveFactory = Callable[[int, int, tuple[int, int], int, int], Autoregressive]
"""``(in_channels, out_channels, grid, cond_dim, spatial_channels) -> Autoregressive``."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode. On exit each module gets its own mode back: frozen parts may differ from the whole."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def generate(
    network: Autoregressive,
    draw: Callable[[Tensor], Tensor],
    embed: Callable[[Tensor], Tensor],
    batch: int,
    cond: Tensor | None = None,
    spatial: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Sample ``batch`` images position by position.

    Args:
        network: in any mode; it runs in eval mode without autocast, in the precision of its weights.
        draw: draws the value at a position from the output there, ``(B, out_channels) -> (B, *value)``.
        embed: maps the value to the network's input, ``(B, *value) -> (B, in_channels)``.
        batch: number of images B.
        cond: see `Autoregressive`; in any precision.
        spatial: see `Autoregressive`; in any precision.
        progress: called with ``(done, total)`` after each position.

    Returns:
        ``(B, *value, H, W)``.
    """
    height, width = network.grid
    weight = next(network.parameters())
    cond, spatial = (None if given is None else given.to(weight.dtype) for given in (cond, spatial))
    values = []
    with evaluating(network), torch.autocast(weight.device.type, enabled=False):
        incremental = network.incremental(batch, cond, spatial)
        for position in range(height * width):
            values.append(draw(incremental.parameters()))
            incremental.feed(embed(values[-1]))
            if progress is not None:
                progress(position + 1, height * width)
    return torch.stack(values, -1).unflatten(-1, (height, width))
