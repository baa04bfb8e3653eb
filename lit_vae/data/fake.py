"""Synthetic images, for tests and to try out a configuration."""

import math

import torch
from torch import Tensor

from lit_vae.data.base import ImageDataModule
from lit_vae.data.loader import Source, Tensors
from lit_vae.data.preprocess import BINARIZATIONS, pixel_preprocess
from lit_vae.data.splits import SPLITS, Part, Split
from lit_vae.images import ImageSpec, Values
from lit_vae.noise import FIXED, uniform
from lit_vae.ranges import NotNegativeInt, PositiveInt, Seed, checked

_BLOBS = 3
_CHUNK = 64


class FakeImages(ImageDataModule):
    """Images of soft coloured blobs, drawn from ``seed``; the place of the first blob depends on the class.

    They are smooth and have few degrees of freedom, so an autoencoder learns them in seconds.

    Args:
        num_train: training images.
        num_val: validation images.
        num_test: test images.
        channels: of an image.
        size: height and width.
        num_classes: labels, or 0 for none.
        values: ``uint8``, ``dequantized``, or ``binary`` (cut at 128).
        batch_size: images in a batch of one process.
        seed: of the images, the shuffling and all noise.
    """

    @checked
    def __init__(
        self,
        num_train: PositiveInt = 512,
        num_val: PositiveInt = 128,
        num_test: PositiveInt = 128,
        channels: PositiveInt = 1,
        size: PositiveInt = 32,
        num_classes: NotNegativeInt = 10,
        values: Values = "uint8",
        batch_size: PositiveInt = 64,
        seed: Seed = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            seed=seed,
            preprocess=BINARIZATIONS["threshold"] if values == "binary" else pixel_preprocess(values == "dequantized"),
        )
        self.save_hyperparameters(logger=False)  # its num_classes need not be that of a model that ignores labels
        self.sizes: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self._spec = ImageSpec(channels, size, size, num_classes, values)

    @property
    def spec(self) -> ImageSpec:
        """The description of the images."""
        return self._spec

    def load(self, part: Part) -> dict[Split, Source]:
        """Draw the splits of a part. A split does not depend on the sizes of the others."""
        return {split: self._draw(split) for split in SPLITS[part]}

    def _draw(self, split: Split) -> Tensors:
        first = (1 << 32) * list(self.sizes).index(split)
        ids = torch.arange(self.sizes[split]) + first
        num_classes = self._spec.num_classes
        if num_classes:
            labels = (uniform(ids, 1, seed=self.seed, time=FIXED, stream=100)[:, 0] * num_classes).long()
        else:
            labels = torch.full((len(ids),), -1)
        chunks = [self._blobs(i, y) for i, y in zip(ids.split(_CHUNK), labels.split(_CHUNK), strict=True)]
        return Tensors(torch.cat(chunks), labels, ids)

    def _blobs(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Draw images ``(B, C, H, W)`` uint8."""
        channels, size = self._spec.channels, self._spec.height
        draws = uniform(ids, _BLOBS * (3 + channels), seed=self.seed, time=FIXED, stream=101)
        draws = draws.view(len(ids), _BLOBS, 3 + channels)
        centres = draws[..., :2].clone()
        if self._spec.num_classes:
            angle = 2 * math.pi * (labels + 0.5 * draws[:, 0, 0]) / self._spec.num_classes
            centres[:, 0] = 0.5 + 0.35 * torch.stack([angle.sin(), angle.cos()], dim=1)
        radii = 0.08 + 0.17 * draws[..., 2]
        colours = 0.3 + 0.7 * draws[..., 3:]
        axis = (torch.arange(size) + 0.5) / size
        offsets = (axis - centres[..., None]) ** 2  # (B, blobs, 2, size)
        distance = offsets[:, :, 0, :, None] + offsets[:, :, 1, None, :]  # (B, blobs, H, W)
        heights = torch.exp(-distance / (2 * radii**2)[..., None, None])
        light = torch.einsum("bkhw,bkc->bchw", heights, colours)
        return light.clamp(0, 1).mul(255).round().to(torch.uint8)
