"""The diffusion transformer: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023, with adaLN-Zero.

Comments at line ends give shapes of one image: t tokens of the grid of patches.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.clock import ClockEmbedding
from lit_vae.networks.layers import AdaptiveLayerNorm, call
from lit_vae.ranges import PositiveFloat, PositiveInt, SmallCount, checked

MODULATIONS = 6
"""Vectors that a block is given: shift, scale and gate of its attention, then of its MLP."""


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of column and row at geometric frequencies: ``(height * width, channels)``, row by row.

    A quarter of the channels each has the sines of the column, its cosines, and those of the row.
    """
    frequencies = 10_000.0 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))

    def waves(length: int) -> Tensor:
        phases = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
        return torch.cat([phases.sin(), phases.cos()], 1)

    columns = waves(width).expand(height, -1, -1)
    rows = waves(height)[:, None].expand(-1, width, -1)
    return torch.cat([columns, rows], 2).flatten(0, 1).to(torch.get_default_dtype())


class _Block(nn.Module):
    """Self-attention, then an MLP. A norm before each is scaled and shifted by the condition, and its result gated."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = AdaptiveLayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.to_query_key_value = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.norm2 = AdaptiveLayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.widen = nn.Linear(width, mlp_width)
        self.narrow = nn.Linear(mlp_width, width)

    def forward(self, h: Tensor, modulation: Tensor) -> Tensor:
        """Tokens ``(B, T, width)``, modulation ``(B, MODULATIONS, 1, width)``."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(1)
        projected = self.to_query_key_value(self.norm1(h, (scale1, shift1)))
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        h = torch.addcmul(h, gate1, self.from_heads(attended.transpose(1, 2).flatten(2)))
        hidden = F.gelu(self.widen(self.norm2(h, (scale2, shift2))), approximate="tanh")
        return torch.addcmul(h, gate2, self.narrow(hidden))


class DiT(nn.Module):
    """A denoising network: a transformer over the patches of the state.

    ``z (B, C, H, W), lam (B,), cond (B, cond_dim) or None -> (B, C, H, W)``; ``lam`` is the log signal-to-noise ratio.
    Blocks start as the identity, and the output as zero. The paper's sizes, each with patch 2, 4 or 8: S has width 384,
    12 layers, 6 heads; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.

    Args:
        shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        patch: height and width of the square of positions that is one token.
        width: width of a token; a multiple of 4 and of ``heads``.
        layers: number of blocks of attention and MLP.
        heads: number of attention heads.
        mlp_ratio: width of the MLPs, relative to ``width``.
        checkpointing: store only the inputs of blocks for the backward pass: less memory, about a third more time.

    Raises:
        ValueError: sizes that do not divide.
    """

    positions: Tensor

    @checked
    def __init__(
        self,
        shape: Shape,
        cond_dim: int = 0,
        patch: PositiveInt = 2,
        width: PositiveInt = 384,
        layers: SmallCount = 12,
        heads: PositiveInt = 6,
        mlp_ratio: PositiveFloat = 4.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        grid = _grid(shape, patch, width, heads)
        self.patch, self.grid, self.checkpointing = patch, grid, checkpointing
        self.clock = ClockEmbedding(width, cond_dim)
        self.embed = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.register_buffer("positions", positions(*grid, width), persistent=False)
        self.modulation = nn.Linear(width, (MODULATIONS * layers + 2) * width)
        self.blocks = nn.ModuleList(_Block(width, heads, max(round(mlp_ratio * width), 1)) for _ in range(layers))
        self.norm = AdaptiveLayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.head = nn.Linear(width, shape[0] * patch**2)
        self._initialize()

    def _initialize(self) -> None:
        """That of the paper's code: Xavier, but N(0, 0.02) for clock and class; modulations and head are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(len(module.weight), -1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.clock.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        modulation = self.modulation(self.clock(lam, cond)).unflatten(1, (-1, 1, self.norm.normalized_shape[0]))
        *of_blocks, of_norm = modulation.split(MODULATIONS, 1)  # (6, 1, width) each, the last (2, 1, width)
        h = self.embed(z).flatten(2).mT + self.positions  # (t, width)
        for block, of_block in zip(self.blocks, of_blocks, strict=True):
            h = call(block, h, of_block, again=self.checkpointing)
        shift, scale = of_norm.unbind(1)
        patches = self.head(self.norm(h, (scale, shift)))  # (t, c patch^2)
        return F.pixel_shuffle(patches.mT.unflatten(2, self.grid), self.patch)  # (c, H, W)


def _grid(shape: Shape, patch: int, width: int, heads: int) -> tuple[int, int]:
    """Height and width of the grid of patches; ValueError for sizes that do not fit."""
    _, rows, columns = shape
    if rows % patch or columns % patch:
        raise ValueError(
            f"DiT: patch (={patch}) must divide height and width of the states, {rows}x{columns}. Set patch in the"
            " init_args of the network."
        )
    if width % math.lcm(4, heads):
        raise ValueError(
            f"DiT: width (={width}) must be a multiple of heads (={heads}) and of 4. Set them in the init_args of the"
            " network."
        )
    return rows // patch, columns // patch
