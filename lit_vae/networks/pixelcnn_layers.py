"""Layers of the gated PixelCNN: convolutions of both stacks, and causal attention."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GATE_GAIN = 2.94
"""``1 / sqrt(E[(tanh(a) sigmoid(b))^2])`` for a, b from N(0, 1): scales a gate's output to variance one."""


def gate(h: Tensor) -> Tensor:
    """``tanh(a) * sigmoid(b)`` of the two halves of the channels (van den Oord et al. 2016, eq. 2)."""
    a, b = h.chunk(2, 1)
    return a.tanh() * b.sigmoid()


def _init(weight: Tensor, gain: float) -> None:
    nn.init.normal_(weight, std=gain / math.sqrt(weight[0].numel()))


class GatedLayer(nn.Module):
    """One layer of both stacks (van den Oord et al. 2016, fig. 2).

    ``vertical (B, C, H, W), horizontal (B, C, H, W), context (B or 1, 4 width, H or 1, W or 1)
    -> vertical, horizontal (B, width, H, W)``, with C = ``in_channels`` in the first layer, else ``width``.

    There are no masked kernels. The padding of the input makes each kernel causal:

    - vertical, ``(k // 2 + 1, k)``: padding at the top only, so it sees the row itself and rows above. The first layer
      shifts its input down by one row, so it and all later layers see only rows above the position.
    - horizontal, ``(1, k // 2 + 1)``: padding at the left only, so it sees the position itself and positions to the
      left. The first layer shifts its input right by one, so it does not see the position itself (the paper's mask A).
    - vertical to horizontal, 1 x 1: the vertical stack sees only rows above the position.

    The horizontal stack has residual connections, except in the first layer, where they would add the value to predict.
    ``context`` is the bias of both gates plus the contribution of the conditions.
    """

    def __init__(
        self, in_channels: int, width: int, kernel_size: int, first: bool, cond_dim: int, spatial_channels: int
    ) -> None:
        super().__init__()
        self.first = first
        reach, shift = kernel_size // 2, int(first)
        self.vertical_padding = (reach, reach, reach + shift, -shift)
        self.horizontal_padding = (reach + shift, -shift)
        self.vertical = nn.Conv2d(in_channels, 2 * width, (reach + 1, kernel_size), bias=False)
        self.horizontal = nn.Conv2d(in_channels, 2 * width, (1, reach + 1), bias=False)
        self.across = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.residual = nn.Conv2d(width, width, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(4 * width))
        self.from_cond = nn.Linear(cond_dim, 4 * width, bias=False) if cond_dim else None
        self.from_spatial = nn.Conv2d(spatial_channels, 4 * width, 1, bias=False) if spatial_channels else None

    def reset_parameters(self, layers: int) -> None:
        """Initialise so that every gate of ``layers`` layers gets an input of variance one.

        The vertical stack has no residual: with PyTorch's initialisation its variance falls twelvefold in each layer.
        ``residual`` gives the horizontal stack variance one at its end.
        """
        gain = 1.0 if self.first else _GATE_GAIN
        _init(self.vertical.weight, gain)
        _init(self.horizontal.weight, math.sqrt(0.5))
        _init(self.across.weight, math.sqrt(0.5))
        _init(self.residual.weight, _GATE_GAIN / math.sqrt(layers))

    def context(self, cond: Tensor | None, spatial: Tensor | None) -> Tensor:
        """Bias of the vertical gate and of the horizontal gate, ``(B or 1, 4 width, H or 1, W or 1)``."""
        context = self.bias[None, :, None, None]
        if self.from_cond is not None and cond is not None:
            context = context + self.from_cond(cond)[:, :, None, None]
        if self.from_spatial is not None and spatial is not None:
            context = context + self.from_spatial(spatial)
        return context

    def forward(
        self, vertical: Tensor, horizontal: Tensor, context: Tensor, dropout: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        for_vertical, for_horizontal = context.chunk(2, 1)
        v = self.vertical(F.pad(vertical, self.vertical_padding)) + for_vertical
        h = self.horizontal(F.pad(horizontal, self.horizontal_padding)) + self.across(v) + for_horizontal
        update = self.residual(dropout(gate(h)))
        return dropout(gate(v)), update if self.first else horizontal + update


class CausalAttention(nn.Module):
    """Attention over all earlier positions, plus a shortcut (Chen et al., "PixelSNAIL", 2018, sec. 2.2).

    ``h (B, width, H, W), x (B, in_channels, H, W) -> (B, width, H, W)``: queries from the features, keys and values
    from the features and the network's input ``x``, all with learned embeddings of row and column. Keys and values
    contain the input at their position, so a position does not attend to itself. All positions also attend to a learned
    key and value "nothing", because the first has no earlier positions.
    """

    def __init__(self, in_channels: int, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.rows = nn.Parameter(0.02 * torch.randn(grid[0], 1, width))
        self.columns = nn.Parameter(0.02 * torch.randn(1, grid[1], width))
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.key_value_input = nn.Linear(in_channels, 2 * width, bias=False)
        self.nothing = nn.Parameter(0.02 * torch.randn(2 * width))
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def split(self, t: Tensor) -> Tensor:
        """``(B, N, width) -> (B, heads, N, width / heads)``."""
        return t.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def places(self) -> Tensor:
        """Position embeddings, ``(H W, width)``."""
        return (self.rows + self.columns).flatten(0, 1)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """See the class."""
        n = self.norm(h.flatten(2).mT) + self.places()
        before = self.key_value(n[:, :-1]) + self.key_value_input(x.flatten(2).mT[:, :-1])
        keys, values = torch.cat([self.nothing.expand(len(h), 1, -1), before], 1).chunk(2, 2)
        # keys are shifted by one position, so the causal mask "up to here" means "before here"
        attended = F.scaled_dot_product_attention(
            self.split(self.query(n)), self.split(keys), self.split(values), is_causal=True
        )
        return h + self.out(attended.transpose(1, 2).flatten(2)).mT.unflatten(2, h.shape[2:])
