"""The gated PixelCNN: an autoregressive network of convolutions, optionally with causal attention."""

from torch import Tensor, nn

from lit_vae.networks.autoregressive import Autoregressive
from lit_vae.networks.pixelcnn_cache import CachedPixelCNN
from lit_vae.networks.pixelcnn_layers import CausalAttention, GatedLayer
from lit_vae.ranges import AtLeastThree, BelowOne, NotNegativeInt, PositiveInt, SmallCount, checked


class GatedPixelCNN(Autoregressive):
    """Convolutions over the values above and to the left, in two stacks without a blind spot.

    Van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016. See `Autoregressive` for inputs
    and outputs, and `GatedLayer` for a layer. Without attention, position (r, c) sees the ``1 + layers * (k // 2)``
    rows above it, ``layers * (k // 2)`` columns to either side there, and ``1 + layers * (k // 2)`` positions to its
    left. There is no normalisation over positions or the batch, which would leak later positions.

    Args:
        in_channels: set by the model.
        out_channels: set by the model.
        grid: set by the model.
        cond_dim: set by the model; a bias in every gate (eq. 4 of the paper).
        spatial_channels: set by the model; a 1 x 1 convolution in every gate (eq. 5).
        width: channels of each stack.
        layers: number of gated layers.
        kernel_size: k, odd, at least 3.
        head_width: hidden channels of the two 1 x 1 convolutions at the end.
        dropout: rate on the output of every gate.
        attention_every: number of layers between two `CausalAttention`; 0 for none.
        heads: heads of the attention.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid: tuple[int, int],
        cond_dim: int = 0,
        spatial_channels: int = 0,
        width: PositiveInt = 64,
        layers: SmallCount = 8,
        kernel_size: AtLeastThree = 5,
        head_width: PositiveInt = 128,
        dropout: BelowOne = 0.0,
        attention_every: NotNegativeInt = 0,
        heads: PositiveInt = 4,
    ) -> None:
        super().__init__(in_channels, out_channels, grid, cond_dim, spatial_channels)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"GatedPixelCNN: kernel_size (={kernel_size}) must be odd. Set"
                " kernel_size in the init_args of the network."
            )
        if attention_every > layers:
            raise ValueError(
                f"GatedPixelCNN: attention_every (={attention_every}) must be from 1 to layers (={layers}), or 0 for no"
                " attention. Set attention_every in the init_args of the network."
            )
        if attention_every and width % heads:
            raise ValueError(
                f"GatedPixelCNN: width (={width}) must be divisible by heads (={heads}). Set"
                " heads in the init_args of the network."
            )
        self.body = nn.ModuleList()
        for index in range(layers):
            channels = width if index else in_channels
            layer = GatedLayer(channels, width, kernel_size, index == 0, cond_dim, spatial_channels)
            layer.reset_parameters(layers)
            self.body.append(layer)
            if attention_every and (index + 1) % attention_every == 0:
                self.body.append(CausalAttention(in_channels, width, heads, grid))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, head_width, 1), nn.SiLU(), nn.Conv2d(head_width, out_channels, 1)
        )

    def forward(self, h: Tensor, cond: Tensor | None = None, spatial: Tensor | None = None) -> Tensor:
        """See `Autoregressive`."""
        self.check_shapes(len(h), cond, spatial, h)
        vertical = horizontal = h
        for layer in self.body:
            if isinstance(layer, CausalAttention):
                horizontal = layer(horizontal, h)
            elif isinstance(layer, GatedLayer):
                vertical, horizontal = layer(vertical, horizontal, layer.context(cond, spatial), self.dropout)
        return self.head(horizontal)

    def incremental(self, batch: int, cond: Tensor | None = None, spatial: Tensor | None = None) -> CachedPixelCNN:
        """See `Autoregressive` and `CachedPixelCNN`. Each position costs one column of each layer."""
        self.check_shapes(batch, cond, spatial)
        return CachedPixelCNN(self.body, self.head, self.grid, batch, cond, spatial)
