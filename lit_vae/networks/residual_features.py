"""A compact residual classifier whose intermediate maps are features of images."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.layers import group_norm, shortcut
from lit_vae.ranges import PositiveInt, SmallCount, checked


class FeatureNetwork(nn.Module, ABC):
    """A classifier that also gives its intermediate feature maps."""

    in_channels: int
    """Channels of the images."""

    num_features: int
    """Channels of the last map."""

    smallest_size: int
    """Smallest height and width of an image, in pixels."""

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps from the finest to the coarsest: ``(B, C, H, W) -> [(B, C_l, H_l, W_l)]``."""

    @abstractmethod
    def classify(self, pooled: Tensor) -> Tensor:
        """Logits of the classes from `pooled` features: ``(B, num_features) -> (B, num_classes)``."""

    def pooled(self, x: Tensor) -> Tensor:
        """The largest value of each channel of the last map: ``(B, C, H, W) -> (B, num_features)``."""
        return self.maps(x)[-1].amax((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes, ``(B, num_classes)``."""
        return self.classify(self.pooled(x))


FeatureNetworkFactory = Callable[[int, int], FeatureNetwork]
"""``(in_channels, num_classes) -> network``: a subclass with its other arguments filled in."""


class _Block(nn.Module):
    """Residual block: convolution, norm, ReLU, convolution, norm, plus shortcut, then ReLU.

    He et al., "Deep Residual Learning for Image Recognition", 2016, sec. 3.3, with GroupNorm.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = group_norm(out_channels)
        self.shortcut = shortcut(in_channels, out_channels)

    def forward(self, h: Tensor) -> Tensor:
        """``(B, in_channels, H, W) -> (B, out_channels, H, W)``."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h)))))
        return F.relu(self.shortcut(h) + residual)


class ResidualFeatures(FeatureNetwork):
    """Residual blocks at each resolution, with average pooling in between; the output of each resolution is a map.

    There are no batch statistics, so a map depends on its image only. Images may have any size from ``smallest_size``
    on.

    Args:
        in_channels: set by the model.
        num_classes: set by the model.
        widths: channels at each resolution, from the finest to the coarsest.
        blocks: residual blocks at each resolution.
        stride: of the first convolution, in pixels: the finest map has an s-th of the image's height and width. Its
            kernel covers 2 s + 1 pixels. A stride of 2 takes a quarter of the operations.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        widths: list[PositiveInt] = [32, 64, 128],  # noqa: B006
        blocks: SmallCount = 1,
        stride: SmallCount = 1,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError(
                f"ResidualFeatures: widths (={widths}) must be one for each resolution, e.g. [32, 64, 128]."
                " Set model.init_args.network.init_args.widths."
            )
        self.in_channels = in_channels
        self.num_features = widths[-1]
        self.smallest_size = stride * (2 ** (len(widths) - 1) - 1) + 1
        self.stem = nn.Conv2d(in_channels, widths[0], 2 * stride + 1, stride=stride, padding=stride)
        channels = [widths[0], *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(_Block(before, width), *(_Block(width, width) for _ in range(blocks - 1)))
            for before, width in zip(channels, widths, strict=False)
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """See `FeatureNetwork`; each map is the output of a ReLU."""
        h = F.relu(self.stem(x))
        maps: list[Tensor] = []
        for stage in self.stages:
            h = stage(F.avg_pool2d(h, 2) if maps else h)
            maps.append(h)
        return maps

    def classify(self, pooled: Tensor) -> Tensor:
        """One linear layer."""
        return self.head(pooled)


class RandomTranslation(nn.Module):
    """Shifts each training image at random and repeats its border; the identity in eval mode.

    Args:
        max_pixels: largest shift in each direction.
    """

    @checked
    def __init__(self, max_pixels: PositiveInt = 2) -> None:
        super().__init__()
        self.max_pixels = max_pixels

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``."""
        if not self.training:
            return x
        n, _, height, width = x.shape
        shift = torch.randint(-self.max_pixels, self.max_pixels + 1, (2, n, 1), device=x.device)
        rows = (torch.arange(height, device=x.device) + shift[0]).clamp(0, height - 1)
        columns = (torch.arange(width, device=x.device) + shift[1]).clamp(0, width - 1)
        image = torch.arange(n, device=x.device)[:, None, None]
        return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
