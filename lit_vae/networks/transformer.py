"""A decoder-only transformer over a grid, with a key-value cache for sampling."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.autoregressive import Autoregressive, Incremental
from lit_vae.networks.layers import AdaptiveLayerNorm, Modulation
from lit_vae.ranges import BelowOne, PositiveInt, SmallCount, checked


class _Cache:
    """Keys and values of one layer at all positions so far."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer  # (2, B, heads, positions, head_dim)
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append key and value of one position, ``(B, heads, 1, head_dim)``; return those of all positions so far."""
        self.buffer[0, :, :, self.length] = key[:, :, 0]
        self.buffer[1, :, :, self.length] = value[:, :, 0]
        self.length += 1
        keys, values = self.buffer[:, :, :, : self.length]
        return keys, values


class _Block(nn.Module):
    """Causal self-attention, then an MLP, each with pre-norm and a residual connection."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = AdaptiveLayerNorm(width)
        self.to_query_key_value = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.norm2 = AdaptiveLayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, modulations: Sequence[Modulation], cache: _Cache | None = None) -> Tensor:
        """Tokens ``(B, T, width)`` of all positions; with a cache ``(B, 1, width)`` of the next position."""
        projected = self.to_query_key_value(self.norm1(x, modulations[0]))
        query, key, value = projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache is not None:
            key, value = cache.append(key, value)
        dropout = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=cache is None)
        x = x + self.dropout(self.from_heads(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm2(x, modulations[1])))))


class CausalTransformer(Autoregressive):
    """Decoder-only transformer in raster order (Radford et al., "Language Models are Unsupervised Multitask Learners").

    See `Autoregressive` for the shapes. The input is shifted by one position after a learned start token. The token of
    position i contains ``h`` at i - 1, the embeddings of the row and column of i, and ``spatial`` at i (the whole
    condition is known before sampling). It attends to tokens up to itself and predicts i. ``cond`` is added to the
    start token. It also scales and shifts every normalised token, initially by the identity (adaptive LayerNorm:
    Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023).

    Args:
        in_channels: set by the model.
        out_channels: set by the model.
        grid: set by the model.
        cond_dim: set by the model.
        spatial_channels: set by the model.
        width: width of a token.
        layers: number of blocks of attention and MLP.
        heads: number of attention heads; must divide ``width``.
        dropout: rate for tokens, attention and residual branches.

    Raises:
        ValueError: ``heads`` does not divide ``width``, or there are no layers.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid: tuple[int, int],
        cond_dim: int = 0,
        spatial_channels: int = 0,
        width: PositiveInt = 128,
        layers: SmallCount = 4,
        heads: PositiveInt = 4,
        dropout: BelowOne = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, grid, cond_dim, spatial_channels)
        if width % heads:
            raise ValueError(
                f"CausalTransformer: width (={width}) must be a multiple of heads (={heads}). Set them in the init_args"
                " of the network."
            )
        self.heads = heads
        self.embed = nn.Linear(in_channels, width)
        self.start = nn.Parameter(torch.empty(1, 1, width))
        self.rows = nn.Parameter(torch.empty(grid[0], 1, width))
        self.columns = nn.Parameter(torch.empty(1, grid[1], width))
        self.start_cond = nn.Linear(cond_dim, width) if cond_dim else None
        self.modulation = nn.Linear(cond_dim, (2 * layers + 1) * 2 * width) if cond_dim else None
        self.spatial = nn.Linear(spatial_channels, width) if spatial_channels else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = AdaptiveLayerNorm(width)
        self.head = nn.Linear(width, out_channels)
        self._initialize()

    def _initialize(self) -> None:
        """GPT-2's initialisation: N(0, 0.02), residual branches divided by the root of their number, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, _Block):
                for linear in (block.from_heads, block.narrow):
                    nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * len(self.blocks)))
        for parameter in (self.start, self.rows, self.columns):
            nn.init.normal_(parameter, std=0.02)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)

    def start_token(self, batch: int, cond: Tensor | None) -> Tensor:
        """The token before the first position: ``-> (B, 1, width)``."""
        start = self.start.expand(batch, -1, -1)
        return start if self.start_cond is None else start + self.start_cond(cond)[:, None]

    def places(self, spatial: Tensor | None) -> Tensor:
        """Embeddings of position and ``spatial`` for each token: ``-> (1 or B, H * W, width)``."""
        places = (self.rows + self.columns).flatten(0, 1)[None]
        return places if spatial is None or self.spatial is None else places + self.spatial(spatial.flatten(2).mT)

    def modulations(self, cond: Tensor | None) -> list[Modulation]:
        """Modulation of each norm in order; the last belongs to the norm before the head."""
        norms = 2 * len(self.blocks) + 1
        if self.modulation is None:
            return [None] * norms
        numbers = self.modulation(cond).unflatten(1, (norms, 2, 1, -1))
        return [(scale, shift) for scale, shift in numbers.permute(1, 2, 0, 3, 4)]

    def predict(self, x: Tensor, modulations: list[Modulation], caches: list[_Cache] | None = None) -> Tensor:
        """Tokens ``(B, T, width)`` to outputs ``(B, T, out_channels)``."""
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, modulations[2 * i : 2 * i + 2], caches[i] if caches else None)
        return self.head(self.norm(x, modulations[-1]))

    def forward(self, h: Tensor, cond: Tensor | None = None, spatial: Tensor | None = None) -> Tensor:
        """See `Autoregressive`."""
        self.check_shapes(len(h), cond, spatial, h)
        embedded = self.embed(h.flatten(2).mT)
        shifted = torch.cat([self.start_token(len(h), cond), embedded[:, :-1]], 1)
        out = self.predict(shifted + self.places(spatial), self.modulations(cond))
        return out.mT.unflatten(2, self.grid)

    def incremental(self, batch: int, cond: Tensor | None = None, spatial: Tensor | None = None) -> Incremental:
        """See `Autoregressive`."""
        self.check_shapes(batch, cond, spatial)
        return _IncrementalTransformer(self, batch, cond, spatial)


class _IncrementalTransformer(Incremental):
    """Processes one token at a time, with cached keys and values of earlier tokens."""

    def __init__(self, network: CausalTransformer, batch: int, cond: Tensor | None, spatial: Tensor | None) -> None:
        self.network = network
        self.places = network.places(spatial)
        self.modulations = network.modulations(cond)
        self.positions, width = self.places.shape[1:]
        shape = len(network.blocks), 2, batch, network.heads, self.positions, width // network.heads
        self.caches = [_Cache(buffer) for buffer in self.places.new_empty(shape)]
        self.position = 0
        self._answer(network.start_token(batch, cond))

    def _answer(self, token: Tensor) -> None:
        token = token + self.places[:, self.position, None]
        self.answer = self.network.predict(token, self.modulations, self.caches)[:, 0]

    def _require_next(self) -> None:
        if self.position == self.positions:
            raise ValueError(f"CausalTransformer: all {self.positions} positions have been visited.")

    def parameters(self) -> Tensor:
        """See `Incremental`."""
        self._require_next()
        return self.answer

    def feed(self, h: Tensor) -> None:
        """See `Incremental`."""
        self._require_next()
        self.position += 1
        if self.position < self.positions:
            self._answer(self.network.embed(h)[:, None])
