"""Networks of the VQ-VAE: strided convolutions and narrow residual blocks, without normalisation.

van den Oord et al., "Neural Discrete Representation Learning" (2017), sec. 4.1, with the layers of Sonnet's CIFAR-10
example; and the hierarchical encoder of Razavi et al., "Generating Diverse High-Fidelity Images with VQ-VAE-2" (2019),
sec. 3.1.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.layers import FiLM, check_condition
from lit_vae.ranges import PositiveInt, SmallCount, checked


def join(levels: Sequence[Tensor]) -> Tensor:
    """Repeats the latents of all levels to the finest grid and concatenates their channels.

    ``(B, d_l, h_l, w_l)``, coarsest first, ``-> (B, sum of d_l, h, w)``.
    """
    grid = levels[-1].shape[-2:]
    return torch.cat([F.interpolate(level, size=grid, mode="nearest") for level in levels], 1)


def _check_width(network: str, width: int) -> None:
    if width % 2:
        raise ValueError(
            f"{network}: width (={width}) must be even, since the convolution at the finest resolution has half of it."
            " Set it in the init_args of the network."
        )


def _halvings(network: str, fine: Shape, coarse: Shape, fine_name: str, coarse_name: str) -> int:
    """Number of halvings from the grid of ``fine`` to that of ``coarse``; ValueError with the grids that fit."""
    if len(coarse) != 3:
        raise ValueError(f"{network}: {coarse_name} is a vector, but must be a map, [channels, height, width].")
    height, width = fine[1:]
    fitting: list[Shape] = []
    while height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        fitting.append((height, width))
    if tuple(coarse[1:]) not in fitting:
        sizes = ", ".join(f"{h}x{w}" for h, w in fitting) or "none, since a side is odd"
        raise ValueError(
            f"{network}: {coarse_name} is {coarse[1]}x{coarse[2]}, but must be {fine_name} ({fine[1]}x{fine[2]})"
            f" halved once or more often. Sizes that fit: {sizes}."
        )
    return fitting.index(tuple(coarse[1:])) + 1


class _NarrowResidual(nn.Module):
    """Residual block: ReLU, 3x3 to ``residual_width``, FiLM if there is a condition, ReLU, 1x1 back."""

    def __init__(self, channels: int, residual_width: int, cond_dim: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(channels, residual_width, 3, padding=1)
        self.film = FiLM(residual_width, cond_dim) if cond_dim else None
        self.conv1 = nn.Conv2d(residual_width, channels, 1)

    def forward(self, h: Tensor, cond: Tensor | None) -> Tensor:
        residual = self.conv3(F.relu(h))
        if self.film is not None and cond is not None:
            residual = self.film(residual, cond)
        return h + self.conv1(F.relu(residual))


class ResidualStack(nn.Module):
    """Residual blocks of ReLU, 3x3, ReLU, 1x1, with a ReLU after the last.

    ``h (B, channels, H, W), cond (B, cond_dim) or None -> (B, channels, H, W)``. A condition scales and shifts the
    narrow features of each block. Raises a ValueError for an unexpected or a missing condition.
    """

    def __init__(self, channels: int, residual_width: int, blocks: int, cond_dim: int = 0) -> None:
        super().__init__()
        self.cond_dim = cond_dim
        self.blocks = nn.ModuleList(_NarrowResidual(channels, residual_width, cond_dim) for _ in range(blocks))

    def forward(self, h: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        check_condition(self, cond)
        for block in self.blocks:
            h = block(h, cond)
        return F.relu(h)


class _Trunk(nn.Module):
    """Strided 4x4 convolutions, the first of half the ``width``; then a 3x3 convolution and the residual stack."""

    def __init__(
        self, in_channels: int, halvings: int, width: int, residual_width: int, blocks: int, cond_dim: int = 0
    ) -> None:
        super().__init__()
        channels = [in_channels, width // 2, *[width] * (halvings - 1)]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(channels))
        self.conv = nn.Conv2d(channels[-1], width, 3, padding=1)
        self.stack = ResidualStack(width, residual_width, blocks, cond_dim)

    def forward(self, h: Tensor, cond: Tensor | None = None) -> Tensor:
        for layer in (*self.down, self.conv):
            h = F.relu(layer(h))
        return self.stack(h, cond)


class VQVAEEncoder(nn.Module):
    """Image to map, with strided convolutions from the size of one to that of the other.

    ``x (B, C, H, W), cond (B, cond_dim) or None -> (B, c, h, w)``. With the defaults, from 32 x 32 to 8 x 8, it is
    Sonnet's CIFAR-10 encoder with its 1x1 convolution before the quantizer.

    Args:
        in_shape: set by the model.
        out_shape: set by the model, ``(c, h, w)``.
        cond_dim: set by the model; 0 for no condition.
        width: channels; the first convolution has half as many.
        residual_width: channels inside a residual block.
        blocks: number of residual blocks.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 128,
        residual_width: PositiveInt = 32,
        blocks: SmallCount = 2,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_width(name, width)
        halvings = _halvings(name, in_shape, out_shape, "the image", "the latent")
        self.trunk = _Trunk(in_shape[0], halvings, width, residual_width, blocks, cond_dim)
        self.head = nn.Conv2d(width, out_shape[0], 1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        return self.head(self.trunk(x, cond))


class VQVAEDecoder(nn.Module):
    """Map to image parameters, the mirror of `VQVAEEncoder`: 3x3, residual stack, transposed 4x4 convolutions.

    ``z (B, *in_shape), cond (B, cond_dim) or None -> (B, *out_shape)``. For several levels of codes, ``z`` is the
    result of `join`.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        width: PositiveInt = 128,
        residual_width: PositiveInt = 32,
        blocks: SmallCount = 2,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        _check_width(name, width)
        halvings = _halvings(name, out_shape, in_shape, "the image", "the latent")
        self.conv = nn.Conv2d(in_shape[0], width, 3, padding=1)
        self.stack = ResidualStack(width, residual_width, blocks, cond_dim)
        channels = [*[width] * (halvings - 1), width // 2, out_shape[0]]
        channels[0] = width  # the stack's channels, also if there is a single convolution
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(channels))

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        first, *rest = self.up  # the stack ends with a ReLU of its own
        h = first(self.stack(self.conv(z), cond))
        for layer in rest:
            h = layer(F.relu(h))
        return h

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last layer."""
        return self.up[-1].weight  # type: ignore[return-value]


class HierarchicalEncoder(nn.Module):
    """Image to the latents of several levels, each given the quantized levels above it (VQ-VAE-2, algorithm 1).

    With two levels, as in the paper::

        features = encoder.features(x)
        e_top = quantize_top(encoder.latent(0, features, []))
        e_bottom = quantize_bottom(encoder.latent(1, features, [e_top]))
        x_hat = decoder(join([e_top, e_bottom]))

    Trunks with the layers of `VQVAEEncoder` compute features from each level's grid to the next coarser one. Then a
    `VQVAEDecoder` brings the levels above to a level's grid, where a 1x1 convolution merges both. All lists are ordered
    from the coarsest level to the finest.

    Args:
        in_shape: set by the model.
        out_shapes: set by the model, ``(d_l, h_l, w_l)`` of each level.
        width: as in `VQVAEEncoder`, for each trunk and decoder.
        residual_width: as in `VQVAEEncoder`.
        blocks: residual blocks of each trunk and decoder.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shapes: Sequence[Shape],
        width: PositiveInt = 128,
        residual_width: PositiveInt = 32,
        blocks: SmallCount = 2,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        own = width, residual_width, blocks
        _check_width(name, width)
        self.trunks = nn.ModuleList()
        self.down = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level, shape in enumerate(out_shapes):
            is_finest = level == len(out_shapes) - 1
            below = in_shape if is_finest else out_shapes[level + 1]
            below_name = "the image" if is_finest else f"level {level + 1}"
            halvings = _halvings(name, below, shape, below_name, f"level {level} of model.grids")
            self.trunks.append(_Trunk(in_shape[0] if is_finest else width, halvings, *own))
            if level:
                above = sum(d for d, _, _ in out_shapes[:level]), *out_shapes[level - 1][1:]
                self.down.append(VQVAEDecoder(above, shape, 0, *own))
            self.heads.append(nn.Conv2d(width + (shape[0] if level else 0), shape[0], 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Features of each level for `latent`: ``(B, C, H, W) -> (B, width, h_l, w_l)``."""
        features = []
        for trunk in reversed(self.trunks):
            x = trunk(x)
            features.append(x)
        return features[::-1]

    def latent(self, level: int, features: Sequence[Tensor], above: Sequence[Tensor]) -> Tensor:
        """z_e of a level, 0 for the coarsest, given `features` and z_q ``(B, d_l, h_l, w_l)`` of the coarser levels.

        Raises:
            ValueError: ``above`` has another number of levels.
        """
        if len(above) != level:
            raise ValueError(
                f"HierarchicalEncoder: level {level} reads the z_q of {level} levels, but {len(above)} came."
            )
        h = features[level]
        if level:
            h = torch.cat([h, self.down[level - 1](join(above))], 1)
        return self.heads[level](h)
