"""Blocks of hierarchical VAEs, ``(in_channels, out_channels, cond_dim) -> block``. They have no batch statistics."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.layers import Block, FiLM, group_norm, shortcut
from lit_vae.ranges import PositiveFloat, PositiveInt, checked

BlockFactory = Callable[[int, int, int], Block]
"""``(in_channels, out_channels, cond_dim) -> block``: a class of this module with its other arguments filled in."""


class VDVAEBlock(Block):
    """The bottleneck of Child, "Very Deep VAEs", 2021, fig. 3: GELU before each of 1x1, 3x3, 3x3 and 1x1. No norm.

    Args:
        in_channels: set by the model.
        out_channels: set by the model.
        cond_dim: set by the model; 0 for no condition.
        bottleneck: channels inside, relative to ``in_channels``.
    """

    @checked
    def __init__(
        self, in_channels: int, out_channels: int, cond_dim: int = 0, bottleneck: PositiveFloat = 0.25
    ) -> None:
        super().__init__()
        inside = max(round(bottleneck * in_channels), 1)
        self.narrow = nn.Conv2d(in_channels, inside, 1)
        self.cond_dim = cond_dim
        self.film = FiLM(inside, cond_dim) if cond_dim else None
        self.conv1 = nn.Conv2d(inside, inside, 3, padding=1)
        self.conv2 = nn.Conv2d(inside, inside, 3, padding=1)
        self.widen = nn.Conv2d(inside, out_channels, 1)
        self.shortcut = shortcut(in_channels, out_channels)

    @property
    def last(self) -> nn.Conv2d:
        """The second 1x1 convolution."""
        return self.widen

    def before_last(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """See `Block`."""
        h = self.narrow(F.gelu(h))
        if self.film is not None:
            h = self.film(h, cond)
        return F.gelu(self.conv2(F.gelu(self.conv1(F.gelu(h)))))


class NVAECell(Block):
    """The generative cell of Vahdat and Kautz, "NVAE", 2020, fig. 3a, with GroupNorm instead of BatchNorm.

    1x1 to more channels, depthwise 5x5, squeeze-and-excite, 1x1 back. BatchNorm would make the bound of an image
    depend on its neighbours in the batch.

    Args:
        in_channels: set by the model.
        out_channels: set by the model.
        cond_dim: set by the model; 0 for no condition.
        expansion: channels inside, as a multiple of ``in_channels``.
    """

    @checked
    def __init__(self, in_channels: int, out_channels: int, cond_dim: int = 0, expansion: PositiveInt = 3) -> None:
        super().__init__()
        inside = expansion * in_channels
        self.norm1, self.norm2, self.norm3 = group_norm(in_channels), group_norm(inside), group_norm(inside)
        self.widen = nn.Conv2d(in_channels, inside, 1)
        self.cond_dim = cond_dim
        self.film = FiLM(inside, cond_dim) if cond_dim else None
        self.depthwise = nn.Conv2d(inside, inside, 5, padding=2, groups=inside)
        squeezed = max(inside // 16, 4)
        self.excite = nn.Sequential(nn.Linear(inside, squeezed), nn.SiLU(), nn.Linear(squeezed, inside), nn.Sigmoid())
        self.narrow = nn.Conv2d(inside, out_channels, 1)
        self.shortcut = shortcut(in_channels, out_channels)

    @property
    def last(self) -> nn.Conv2d:
        """The second 1x1 convolution."""
        return self.narrow

    def before_last(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """See `Block`. The gate is before the last layer, so that this layer at zero makes the residual zero."""
        h = self.norm2(self.widen(self.norm1(h)))
        if self.film is not None:
            h = self.film(h, cond)
        h = F.silu(self.norm3(self.depthwise(F.silu(h))))
        return h * self.excite(h.mean((2, 3)))[:, :, None, None]


@torch.no_grad()
def rescale(layer: nn.Module, factor: float) -> None:
    """Multiply all parameters of a linear layer, and so its output; with 0 it is zero."""
    for parameter in layer.parameters():
        parameter.mul_(factor)
