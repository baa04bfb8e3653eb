"""Patch discriminator: Isola et al., "Image-to-Image Translation with Conditional GANs", 2017."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_vae.images import Shape
from lit_vae.networks.layers import group_norm
from lit_vae.ranges import PositiveInt, SmallCount, checked

Normalization = Literal["group", "batch", "none"]

NORMALIZATIONS: dict[Normalization, Callable[[int], nn.Module]] = {"group": group_norm, "batch": nn.BatchNorm2d}


class PatchDiscriminator(nn.Module):
    """Images to logits of overlapping patches: ``(B, C, H, W) -> (B, 1, h, w)``.

    4x4 convolutions, ``layers`` of them with stride two; with three, a logit sees 70 x 70 pixels. Initial weights are
    N(0, 0.02).

    Args:
        in_shape: set by the model, ``(C, H, W)``.
        width: channels of the first convolution; each next one doubles them, up to eight times.
        layers: number of convolutions with stride two.
        normalization: ``group``; ``batch`` as in the paper (set ``trainer.sync_batchnorm`` for several ranks); or
            ``none``.
        spectral: divide each weight by its largest singular value (Miyato et al. 2018).
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        width: PositiveInt = 64,
        layers: SmallCount = 3,
        normalization: Normalization = "group",
        spectral: bool = False,
    ) -> None:
        super().__init__()
        channels, *size = in_shape
        if min(size) < 3 * 2**layers:
            raise ValueError(
                f"PatchDiscriminator: layers (={layers}) need images of {3 * 2**layers} pixels a side, but these are"
                f" {size[0]}x{size[1]}. Take fewer layers."
            )
        body: list[nn.Module] = []
        strides = [2] * layers + [1]
        for i, stride in enumerate(strides):
            out_channels = width * min(2**i, 8)
            norm = NORMALIZATIONS.get(normalization) if i > 0 else None
            body.append(nn.Conv2d(channels, out_channels, 4, stride, padding=1, bias=norm is None))
            if norm is not None:
                body.append(norm(out_channels))
            body.append(nn.LeakyReLU(0.2))
            channels = out_channels
        self.body = nn.Sequential(*body, nn.Conv2d(channels, 1, 4, padding=1))
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                if spectral:
                    spectral_norm(layer)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.body(x)
