"""Layers that the networks share."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class GroupNorm(nn.GroupNorm):
    """GroupNorm in float32 under autocast, as on CUDA: the bf16 channels-last kernel of CPUs is very slow."""

    def forward(self, h: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``, in the dtype of ``h``."""
        with torch.autocast(h.device.type, enabled=False):
            return super().forward(h.to(torch.promote_types(h.dtype, torch.float32))).to(h.dtype)


def norm_groups(channels: int) -> int:
    """At most 32 groups of at least 4 channels."""
    groups = min(32, max(channels // 4, 1))
    while channels % groups:
        groups -= 1
    return groups


def group_norm(channels: int) -> GroupNorm:
    """GroupNorm with the groups of `norm_groups`. It has no batch statistics to synchronise."""
    return GroupNorm(norm_groups(channels), channels, eps=1e-6)


def call(network: nn.Module, *inputs: Tensor | None, again: bool) -> Tensor:
    """``network(*inputs)``. With ``again`` only the inputs are stored, and the backward pass computes it again."""
    if again and torch.is_grad_enabled():
        return checkpoint(network, *inputs, use_reentrant=False)
    return network(*inputs)


class FiLM(nn.Module):
    """Scales and shifts feature maps by a condition (Perez et al., "FiLM", 2018); initially the identity.

    ``h (B, C, H, W), cond (B, cond_dim) -> (B, C, H, W)``.
    """

    def __init__(self, channels: int, cond_dim: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Linear(cond_dim, 2 * channels)
        nn.init.zeros_(self.to_scale_shift.weight)
        nn.init.zeros_(self.to_scale_shift.bias)

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        """``h * (1 + scale) + shift``."""
        scale, shift = self.to_scale_shift(cond)[:, :, None, None].chunk(2, 1)
        return h * (1.0 + scale) + shift


Modulation = tuple[Tensor, Tensor] | None
"""Scale and shift of a normalised token, ``(B, 1, width)`` each; None without a condition."""


class AdaptiveLayerNorm(nn.LayerNorm):
    """LayerNorm, then a scale and a shift from the condition: ``(B, T, width) -> (B, T, width)``."""

    def forward(self, x: Tensor, modulation: Modulation = None) -> Tensor:
        """See the class."""
        x = super().forward(x)
        if modulation is None:
            return x
        scale, shift = modulation
        return x * (1.0 + scale) + shift


class Conditional(Protocol):
    """A network that was built for a condition of ``cond_dim`` numbers, or for none if that is 0."""

    cond_dim: int


def check_condition(network: Conditional, cond: Tensor | None) -> None:
    """Raise a ValueError for an unexpected or a missing condition."""
    if (cond is not None) != (network.cond_dim > 0):
        given = "no condition" if cond is None else f"a condition of {cond.shape[1]} numbers"
        raise ValueError(f"{type(network).__name__}: built with cond_dim (={network.cond_dim}), but {given} came.")


class Block(nn.Module, ABC):
    """A shortcut plus a residual, whose last layer is a convolution.

    ``h (B, in_channels, H, W), cond (B, cond_dim) or None -> (B, out_channels, H, W)``. Raises a ValueError for an
    unexpected or a missing condition.
    """

    cond_dim: int
    shortcut: nn.Module

    @property
    @abstractmethod
    def last(self) -> nn.Conv2d:
        """The last layer of the residual."""

    @abstractmethod
    def before_last(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """Input of the last layer."""

    def forward(self, h: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        check_condition(self, cond)
        return self.shortcut(h) + self.last(self.before_last(h, cond))


def shortcut(in_channels: int, out_channels: int) -> nn.Module:
    """The identity, or a 1x1 convolution if the numbers of channels differ."""
    return nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()


class ResidualBlock(Block):
    """Twice norm, SiLU, convolution, plus a shortcut; initially the shortcut, since the second convolution is zero."""

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.cond_dim = cond_dim
        self.film = FiLM(out_channels, cond_dim) if cond_dim else None
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = shortcut(in_channels, out_channels)
        nn.init.zeros_(self.conv2.weight)
        if self.conv2.bias is not None:
            nn.init.zeros_(self.conv2.bias)

    @property
    def last(self) -> nn.Conv2d:
        """The second convolution."""
        return self.conv2

    def before_last(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """See `Block`."""
        h = self.norm2(self.conv1(F.silu(self.norm1(h))))
        return self.dropout(F.silu(h if self.film is None else self.film(h, cond)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution, computed as one transposed convolution.

    It makes no checkerboard artifacts (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016).
    Doubling is a transposed convolution of stride 2 with a 2x2 kernel of ones. Both convolutions together are one with
    a 4x4 kernel: 16 instead of 36 multiplications for each value and output channel.
    """

    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        # a transposed convolution flips its kernel; sums over 2x2 windows are a convolution with ones
        flipped = torch.eye(9).view(9, 1, 3, 3).flip(2, 3)
        windows = F.avg_pool2d(flipped, 2, stride=1, padding=1, divisor_override=1)
        self.register_buffer("taps", windows.view(9, 16), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, 2 H, 2 W)``."""
        kernel = torch.einsum("oit,tk->iok", self.conv.weight.flatten(2), self.taps).unflatten(2, (4, 4))
        return F.conv_transpose2d(h, kernel, self.conv.bias, stride=2, padding=1)
