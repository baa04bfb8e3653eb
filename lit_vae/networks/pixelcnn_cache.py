"""Incremental sampling from the gated PixelCNN: each step computes one position only.

A row buffer ``(B, left + W, C)`` holds a layer's input in the current row; its first ``left`` columns are zero, the
padding of ``forward``. The columns under a horizontal kernel are contiguous in memory, so the convolution at a position
is one matrix product with a view of them. Columns to the right still hold the row before, but are never read, so the
views are made once and serve all rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.autoregressive import Incremental
from lit_vae.networks.pixelcnn_layers import CausalAttention, GatedLayer, gate


class _CachedLayer:
    """A `GatedLayer`: the vertical stack row by row, the horizontal one position by position.

    ``source`` and ``target`` are the row buffers of the horizontal input (its last W columns) and output.
    """

    def __init__(
        self,
        layer: GatedLayer,
        source: Tensor,
        target: Tensor,
        grid_width: int,
        cond: Tensor | None,
        spatial: Tensor | None,
    ) -> None:
        self.layer, self.cond, self.spatial = layer, cond, spatial
        batch, _, width = target.shape
        rows, columns = layer.vertical.kernel_size
        self.padding = (0, columns // 2)
        self.above = source.new_zeros(batch, layer.vertical.in_channels, rows, grid_width)
        self.context = source.new_zeros(grid_width, batch, 2 * width)
        self.gates = source.new_zeros(batch, 2 * width)
        self.tanh_half = self.gates[:, :width]
        taps = layer.horizontal.kernel_size[1]
        self.gate_weight = layer.horizontal.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()
        self.residual_weight = layer.residual.weight[:, :, 0, 0].t().contiguous()
        shortcut = source.new_zeros(batch, grid_width, width) if layer.first else source[:, -grid_width:]
        self.views = [
            (self.context[c], source[:, c : c + taps].view(batch, -1), shortcut[:, c], target[:, c - grid_width])
            for c in range(grid_width)
        ]

    def begin_row(self, row: int, vertical: Tensor) -> Tensor:
        """Run the vertical stack on the newest input row: ``(B, C, 1, W) -> (B, width, 1, W)``."""
        layer = self.layer
        self.above = torch.cat([self.above[:, :, 1:], vertical], 2)
        context = layer.context(self.cond, None if self.spatial is None else self.spatial[:, :, row : row + 1])
        for_vertical, for_horizontal = context.chunk(2, 1)
        v = F.conv2d(self.above, layer.vertical.weight, padding=self.padding) + for_vertical
        self.context.copy_((layer.across(v) + for_horizontal)[:, :, 0].permute(2, 0, 1))
        return gate(v)

    def visit(self, column: int) -> None:
        """Run the horizontal stack at one position."""
        context, taps, shortcut, target = self.views[column]
        torch.addmm(context, taps, self.gate_weight, out=self.gates)
        self.tanh_half.tanh_()
        torch.addmm(shortcut, F.glu(self.gates, 1), self.residual_weight, out=target)


class _CachedAttention:
    """A `CausalAttention` with cached keys and values, "nothing" first. It changes the row buffer ``target``."""

    def __init__(self, attention: CausalAttention, target: Tensor, grid: tuple[int, int]) -> None:
        self.attention = attention
        self.columns = [target[:, c - grid[1]] for c in range(grid[1])]
        self.places = attention.places()
        shape = (len(target), attention.heads, grid[0] * grid[1] + 1, target.shape[2] // attention.heads)
        self.keys, self.values = target.new_zeros(shape), target.new_zeros(shape)
        self.normed = target[:, 0]
        self.keep(0, attention.nothing.expand(len(target), -1))

    def keep(self, place: int, key_value: Tensor) -> None:
        """Store a key and a value, ``(B, 2 width)``."""
        keys, values = key_value.view(len(key_value), 2, self.attention.heads, -1).unbind(1)
        self.keys[:, :, place] = keys
        self.values[:, :, place] = values

    def visit(self, position: int) -> None:
        """Attend from this position to earlier positions."""
        h = self.columns[position % len(self.columns)]
        self.normed = self.attention.norm(h) + self.places[position]
        query = self.attention.split(self.attention.query(self.normed)[:, None])
        before = slice(None), slice(None), slice(position + 1)
        attended = F.scaled_dot_product_attention(query, self.keys[before], self.values[before])
        h += self.attention.out(attended.flatten(1))

    def feed(self, position: int, x: Tensor) -> None:
        """Cache this position for later ones; ``x (B, in_channels)`` is the network's input here."""
        self.keep(position + 1, self.attention.key_value(self.normed) + self.attention.key_value_input(x))


class CachedPixelCNN(Incremental):
    """A `GatedPixelCNN` in steps: `feed` computes one column of each layer, and at the start of a row one row.

    Without attention, it stores a few rows of each layer. The weights must not change between steps.
    """

    def __init__(
        self,
        body: nn.ModuleList,
        head: nn.Sequential,
        grid: tuple[int, int],
        batch: int,
        cond: Tensor | None,
        spatial: Tensor | None,
    ) -> None:
        self._grid = grid
        first = body[0]
        assert isinstance(first, GatedLayer)
        width, reach = first.residual.out_channels, first.horizontal.kernel_size[1] - 1
        buffer = first.bias.new_zeros(batch, reach + 1 + grid[1], first.vertical.in_channels)
        self._input = buffer[:, -grid[1] :]
        self._steps: list[_CachedLayer | _CachedAttention] = []
        for layer in body:
            if isinstance(layer, CausalAttention):
                self._steps.append(_CachedAttention(layer, buffer, grid))
            elif isinstance(layer, GatedLayer):
                source, buffer = buffer, first.bias.new_zeros(batch, reach + grid[1], width)
                self._steps.append(_CachedLayer(layer, source, buffer, grid[1], cond, spatial))
        self._output = buffer[:, -grid[1] :]
        self._head = [(conv.weight.flatten(1), conv.bias) for conv in head if isinstance(conv, nn.Conv2d)]
        self._position = 0
        self._visit()

    def _check_not_at_end(self) -> None:
        height, width = self._grid
        if self._position == height * width:
            raise ValueError(f"GatedPixelCNN: all {height} x {width} positions have been visited. Start a new pass.")

    def _visit(self) -> None:
        row, column = divmod(self._position, self._grid[1])
        if column == 0:
            vertical = self._input.mT.unsqueeze(2)  # the row above; zero for the first row
            for step in self._steps:
                if isinstance(step, _CachedLayer):
                    vertical = step.begin_row(row, vertical)
        for step in self._steps:
            step.visit(column if isinstance(step, _CachedLayer) else self._position)

    def parameters(self) -> Tensor:
        """See `Incremental`."""
        self._check_not_at_end()
        h = self._output[:, self._position % self._grid[1]]
        for weight, bias in self._head:
            h = F.linear(F.silu(h), weight, bias)
        return h

    def feed(self, h: Tensor) -> None:
        """See `Incremental`."""
        self._check_not_at_end()
        x = self._input[:, self._position % self._grid[1]]
        x.copy_(h)
        for step in self._steps:
            if isinstance(step, _CachedAttention):
                step.feed(self._position, x)
        self._position += 1
        if self._position < self._grid[0] * self._grid[1]:
            self._visit()
