"""Splits in image files, decoded to one size when they are read, or once into memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import functional as F

from lit_vae.data.base import ImageDataModule
from lit_vae.data.checks import Problem
from lit_vae.data.decode import Decoder
from lit_vae.data.loader import Raw, Reader, Source, TensorLoader, Tensors, WorkerLoader, as_read
from lit_vae.data.opened import Unreadable, allow_large_images
from lit_vae.data.orders import Order
from lit_vae.data.preprocess import Preprocess
from lit_vae.data.splits import Split
from lit_vae.noise import CROP, FIXED, uniform
from lit_vae.run.threads import cores

Crop = Literal["center", "random", "none"]

_CHUNK = 128
_MAX_WORKERS = 8
_MIN_CHUNKS_FOR_WORKERS = 8  # with fewer, starting worker processes takes longer than decoding


@dataclass(frozen=True)
class Geometry:
    """Crops and resizes an image of any size to ``size x size``, with Pillow's bicubic filter, antialiased.

    ``center`` resizes the shorter side to ``resize`` (default: ``size``) and cuts out the centre. ``random`` cuts out a
    random square; the shorter side is resized before only if ``resize`` is set. ``none`` resizes both sides to
    ``size``, which squeezes an image that is not square. ``cut_first`` first takes a central square of that side. An
    image that is too small for its crop is enlarged until its shorter side is ``size``.
    """

    size: int
    crop: Crop = "center"
    resize: int | None = None
    cut_first: int | None = None

    def cut(self, width: int, height: int) -> float:
        """The share of a picture that the central square leaves out."""
        return 1.0 - min(width, height) / max(width, height) if self.crop == "center" else 0.0

    def squeezed(self, width: int, height: int) -> float:
        """How many times narrower or flatter a picture becomes."""
        return max(width, height) / min(width, height) if self.crop == "none" else 1.0

    def enlarged(self, width: int, height: int) -> float:
        """How many times larger a picture becomes, along its shorter side."""
        shorter = min(width, height)
        return (self.size if self.crop == "none" else self._shorter(shorter)) / shorter

    def __call__(self, image: Image.Image, position: tuple[float, float] | None = None) -> Image.Image:
        """Crop and resize an image; ``position`` in [0, 1)^2 places a random crop, None takes the centre."""
        bicubic = F.InterpolationMode.BICUBIC
        if self.cut_first is not None:
            image = F.center_crop(image, [self.cut_first])
        if self.crop == "none":
            return F.resize(image, [self.size, self.size], bicubic)
        shorter = self._shorter(min(image.size))
        if shorter != min(image.size):
            image = F.resize(image, [shorter], bicubic)
        if position is None:
            return F.center_crop(image, [self.size])
        left, top = (int(p * (side - self.size + 1)) for p, side in zip(position, image.size, strict=True))
        return image.crop((left, top, left + self.size, top + self.size))

    def _shorter(self, shorter: int) -> int:
        """The length of the shorter side before the crop."""
        return max(self.resize or (self.size if self.crop == "center" else shorter), self.size)


@dataclass(frozen=True)
class Pictures:
    """A split in files, decoded when it is read (see :class:`lit_vae.data.loader.Source`).

    Args:
        paths: of the images.
        labels: ``(N,)`` int64.
        first_id: number of the first image in the data set.
        geometry: crops and resizes images.
        decoder: reads files.
        crops: random crops of each image in an epoch; 0: one central crop.
        seed: of the random crops.
    """

    paths: list[Path]
    labels: Tensor
    first_id: int
    geometry: Geometry
    decoder: Decoder
    crops: int = 0
    seed: int = 0

    def __len__(self) -> int:
        return len(self.paths) * max(1, self.crops)

    def classes(self) -> Tensor:
        """Return the label of each index."""
        return self.labels.repeat_interleave(max(1, self.crops))

    def read(self, indices: Tensor, epoch: int = FIXED) -> Raw:
        """Read the images at ``indices (B,)``; random crops differ between epochs, and are fixed in evaluation."""
        which = indices // max(1, self.crops)
        ids = indices + self.first_id
        images = [self._decode(*job) for job in self._jobs(which, ids, epoch)]
        return Raw(torch.stack(images), self.labels[which], ids)

    def to_memory(self, num_workers: int = 0) -> Tensors:
        """Decode all images; if there are many, in worker processes."""
        size = self.geometry.size
        images = torch.empty(len(self), self.decoder.channels, size, size, dtype=torch.uint8)
        indices = torch.arange(len(self))
        chunks = [[(FIXED, i) for i in chunk.tolist()] for chunk in indices.split(_CHUNK) if len(chunk)]
        workers = num_workers if len(chunks) >= _MIN_CHUNKS_FOR_WORKERS else 0
        loader = DataLoader(Reader(self), batch_sampler=chunks, collate_fn=as_read, num_workers=workers)
        for start, raw in zip(range(0, len(self), _CHUNK), loader, strict=True):
            images[start : start + _CHUNK] = raw.u
        return Tensors(images, self.labels, indices + self.first_id)

    @property
    def nbytes(self) -> int:
        """Bytes that all images need in memory."""
        return len(self) * self.decoder.channels * self.geometry.size**2

    def _jobs(self, which: Tensor, ids: Tensor, epoch: int) -> Iterator[tuple[Path, tuple[float, float] | None]]:
        if self.crops:
            positions = uniform(ids, 2, seed=self.seed, time=epoch, stream=CROP).tolist()
        else:
            positions = [None] * len(ids)
        for i, position in zip(which.tolist(), positions, strict=True):
            yield self.paths[i], position and (position[0], position[1])

    def _decode(self, path: Path, position: tuple[float, float] | None) -> Tensor:
        try:
            with allow_large_images():
                image = self.decoder(path)
        except Unreadable as error:
            raise ValueError(f"{path}: not a complete image ({error}). Delete or replace it.") from error
        levels = np.array(self.geometry(image, position))
        return torch.from_numpy(levels.reshape(*levels.shape[:2], self.decoder.channels)).permute(2, 0, 1)


class PictureDataModule(ImageDataModule):
    """A data module of image files, decoded into memory if they fit, otherwise by worker processes.

    A concrete class calls :meth:`store` on each split's pictures.
    """

    def __init__(
        self, *, in_memory_mb: int, num_workers: int | None, problems: Iterable[Problem] = (), **kwargs: Any
    ) -> None:
        super().__init__(problems=problems, **kwargs)
        self.in_memory_mb = in_memory_mb
        self.num_workers = num_workers
        self._loaders: WeakSet[WorkerLoader] = WeakSet()

    def store(self, pictures: dict[Split, Pictures]) -> dict[Split, Source]:
        """Decode the splits into memory, if all fit and have no random crops."""
        total = sum(split.nbytes for split in pictures.values())
        if total > self.in_memory_mb << 20 or any(split.crops for split in pictures.values()):
            return dict(pictures)
        return {name: split.to_memory(self._workers()) for name, split in pictures.items()}

    def _loader(self, source: Source, order: Order, transform: Preprocess) -> TensorLoader:
        if not isinstance(source, Pictures):
            return super()._loader(source, order, transform)
        loader = WorkerLoader(source, order, transform, self.seed, self._device(), num_workers=self._workers())
        self._loaders.add(loader)
        return loader

    def teardown(self, stage: str) -> None:
        """End the workers of a training or an evaluation with it."""
        for loader in self._loaders:
            loader.close()

    def _workers(self) -> int:
        """Return the number of worker processes of this process."""
        if self.num_workers is not None:
            return self.num_workers
        local = self.trainer.num_devices if self.trainer is not None else 1
        return min(_MAX_WORKERS, cores(local).number)
