"""Image files: finding them, knowing the broken ones, and decoding them to one size."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import functional as F

from lit_vae.data.loader import Raw, Reader, Tensors, as_read
from lit_vae.noise import CROP, FIXED, uniform
from lit_vae.threads import cores

Crop = Literal["center", "random", "none"]

_JPEG_END = b"\xff\xd9"
_PADDING = b"\0\r\n "
_CHUNK = 128
_MANY_CHUNKS = 8  # fewer are decoded before worker processes have started


@dataclass(frozen=True)
class Geometry:
    """How an image of any size becomes ``size x size``. Resizing is Pillow's bicubic filter, antialiased.

    ``center`` resizes the shorter side to ``resize`` (default: ``size``) and cuts out the centre. ``random`` cuts out
    a random square, after resizing the shorter side only if ``resize`` says so. ``none`` resizes both sides to ``size``
    and so squeezes what is not square. ``cut_first`` takes a central square of that side before everything else. An
    image that is too small for its crop is enlarged until its shorter side is ``size``.
    """

    size: int
    crop: Crop = "center"
    resize: int | None = None
    cut_first: int | None = None

    def __call__(self, image: Image.Image, position: tuple[float, float] | None = None) -> Image.Image:
        """Bring an image to size; ``position`` in [0, 1)^2 places a random crop, None takes the centre."""
        bicubic = F.InterpolationMode.BICUBIC
        if self.cut_first is not None:
            image = F.center_crop(image, [self.cut_first])
        if self.crop == "none":
            return F.resize(image, [self.size, self.size], bicubic)
        shorter = self.resize or (self.size if self.crop == "center" else min(image.size))
        shorter = max(shorter, self.size)
        if shorter != min(image.size):
            image = F.resize(image, [shorter], bicubic)
        if position is None:
            return F.center_crop(image, [self.size])
        left, top = (int(p * (side - self.size + 1)) for p, side in zip(position, image.size, strict=True))
        return image.crop((left, top, left + self.size, top + self.size))


@dataclass(frozen=True)
class Pictures:
    """A split that lies in files, decoded when it is read (see :class:`lit_vae.data.loader.Source`).

    Args:
        paths: of the images.
        labels: ``(N,)`` int64.
        first_id: the images' numbers in the data set start here.
        geometry: brings them to size.
        channels: 1 or 3.
        crops: how often each image comes, with another random crop each time; 0 for central crops.
        seed: of the random crops.
    """

    paths: list[Path]
    labels: Tensor
    first_id: int
    geometry: Geometry
    channels: int
    crops: int = 0
    seed: int = 0

    def __len__(self) -> int:
        return len(self.paths) * max(1, self.crops)

    def read(self, indices: Tensor, epoch: int = FIXED) -> Raw:
        """Read the images at ``indices (B,)``; random crops differ between epochs, and are fixed in evaluation."""
        which = indices // max(1, self.crops)
        ids = indices + self.first_id
        images = [self._decode(*job) for job in self._jobs(which, ids, epoch)]
        return Raw(torch.stack(images), self.labels[which], ids)

    def to_memory(self, num_workers: int = 0) -> Tensors:
        """Decode all images, by worker processes where there are many."""
        size = self.geometry.size
        images = torch.empty(len(self), self.channels, size, size, dtype=torch.uint8)
        indices = torch.arange(len(self))
        chunks = [[(FIXED, i) for i in chunk.tolist()] for chunk in indices.split(_CHUNK) if len(chunk)]
        workers = num_workers if len(chunks) >= _MANY_CHUNKS else 0
        loader = DataLoader(Reader(self), batch_sampler=chunks, collate_fn=as_read, num_workers=workers)
        for start, raw in zip(range(0, len(self), _CHUNK), loader, strict=True):
            images[start : start + _CHUNK] = raw.u
        return Tensors(images, self.labels, indices + self.first_id)

    @property
    def nbytes(self) -> int:
        """Memory that all images would take."""
        return len(self) * self.channels * self.geometry.size**2

    def _jobs(self, which: Tensor, ids: Tensor, epoch: int) -> Iterator[tuple[Path, tuple[float, float] | None]]:
        if self.crops:
            positions = uniform(ids, 2, seed=self.seed, time=epoch, stream=CROP).tolist()
        else:
            positions = [None] * len(ids)
        for i, position in zip(which.tolist(), positions, strict=True):
            yield self.paths[i], position and (position[0], position[1])

    def _decode(self, path: Path, position: tuple[float, float] | None) -> Tensor:
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("L" if self.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: not a whole image ({error}). Delete or replace it.") from error
        levels = np.array(self.geometry(image, position))
        return torch.from_numpy(levels.reshape(*levels.shape[:2], self.channels)).permute(2, 0, 1)


def find_files(folder: Path) -> Iterator[Path]:
    """Find all files under a folder, at any depth, in a fixed order; hidden files and folders are left out."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def is_image_name(path: Path) -> bool:
    """Tell whether the extension is that of an image format Pillow reads."""
    return path.suffix.lower() in _extensions()


def broken(paths: list[Path]) -> list[Path]:
    """Return the files that are not whole images, in order.

    A JPEG that ends as one should is believed; everything else is decoded, on all cores.
    """
    with ThreadPoolExecutor(cores().number) as pool:
        return [path for path, good in zip(paths, pool.map(_is_whole, paths), strict=True) if not good]


@cache
def _extensions() -> frozenset[str]:
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def _is_whole(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            if image.format == "JPEG" and path.read_bytes().rstrip(_PADDING).endswith(_JPEG_END):
                return True
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True
