"""The base of image data modules; a concrete one describes its images and reads them."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from lit_vae.data.checks import Problem
from lit_vae.data.loader import Raw, Source, TensorLoader, Tensors
from lit_vae.data.orders import Order
from lit_vae.data.preprocess import Preprocess, RandomFlip, ValuePreprocess
from lit_vae.data.splits import Part, Split, SplitDataModule
from lit_vae.images import Batch, ImageSpec, levels
from lit_vae.noise import FIXED, Draws

PROBED = 64
"""How many images `ImageDataModule.fingerprint` reads."""

_DEVICE_SHARE = 0.25  # of the GPU's free memory that one split may take


class ImageDataModule(SplitDataModule[Raw, Batch]):
    """Batches of images ``x`` in [-1, 1] and labels ``y`` (see :class:`lit_vae.images.Batch`), in three splits.

    Shuffling, sharding and errors are those of :class:`~lit_vae.data.splits.SplitDataModule`. ``preprocess`` makes
    ``x`` from eight-bit levels. Only training images are mirrored (``random_flip``); the noise of validation and test
    images is the same each time.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        preprocess: ValuePreprocess,
        random_flip: bool = False,
        problems: Iterable[Problem] = (),
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, problems=problems)
        self.preprocess = preprocess
        self.random_flip = random_flip

    @property
    @abstractmethod
    def spec(self) -> ImageSpec:
        """The description of the images, from the arguments alone."""

    @abstractmethod
    def load(self, part: Part) -> dict[Split, Source[Raw]]:
        """Read the splits of a part."""

    def make_loader(self, source: Source[Raw], order: Order, training: bool) -> TensorLoader:
        """Return a loader of a source, on the trainer's device."""
        transform: Preprocess = RandomFlip(self.preprocess) if training and self.random_flip else self.preprocess
        return self._loader(source, order, transform)

    def make_example(self, source: Source[Raw], indices: Tensor) -> Batch:
        """Return the images at ``indices`` as in evaluation, on the CPU."""
        u, y, ids = source.read(indices, FIXED)
        return Batch(self.preprocess(u, Draws(self.seed, FIXED, ids)), y)

    def fingerprint(self, split: Split) -> str:
        """Return a hash of a split as it is evaluated: number, shape, and levels of `PROBED` images.

        The images are spread evenly over the split, so the hash is quick. Other data and another split, crop, size or
        binarisation change it. It may miss a change of a few images. Uniform noise does not change it, since the levels
        are those before the noise.
        """
        source = self.source(split)
        indices = torch.linspace(0, max(len(source) - 1, 0), min(PROBED, len(source))).round().long()
        found = hashlib.sha256(f"{len(source)} {self.spec.shape}".encode())
        if len(source):
            found.update(levels(self.make_example(source, indices).x, self.spec.values).numpy().tobytes())
        return found.hexdigest()

    def _loader(self, source: Source[Raw], order: Order, transform: Preprocess) -> TensorLoader:
        device = self._device()
        if isinstance(source, Tensors) and device.type == "cuda" and _fits(source, device):
            source = source.to(device)
        return TensorLoader(source, order, transform, self.seed, device)


def hold_out(num_images: int, *sizes: int, seed: int) -> list[Tensor]:
    """Split ``range(num_images)`` at random: the rest, then parts of the given sizes, each in ascending order."""
    permutation = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    parts = permutation.split([*sizes, num_images - sum(sizes)])
    return [part.sort().values for part in (parts[-1], *parts[:-1])]


def _fits(source: Tensors, device: torch.device) -> bool:
    """Tell whether a split fits into the share of a GPU's free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    return source.images.nbytes < _DEVICE_SHARE * free
