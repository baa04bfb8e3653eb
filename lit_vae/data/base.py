"""What every image data module does; a concrete one says what its images are and reads them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_vae.data.checks import Problem, positive
from lit_vae.data.loader import EvalOrder, Order, Source, TensorLoader, Tensors, TrainOrder
from lit_vae.data.noise import FIXED, Draws
from lit_vae.data.preprocess import Preprocess, RandomFlip, ValuePreprocess
from lit_vae.images import Batch, ImageSpec

Split = Literal["train", "val", "test"]
Part = Literal["fit", "test"]
"""``fit`` is train and val."""

_PART_OF_STAGE: dict[str | None, tuple[Part, ...]] = {
    None: ("fit", "test"),
    "fit": ("fit",),
    "validate": ("fit",),
    "test": ("test",),
    "predict": ("test",),
}
_DEVICE_SHARE = 0.25  # of the accelerator's free memory that one split may take


class ImageDataModule(LightningDataModule, ABC):
    """Batches of images ``x`` in [-1, 1] and labels ``y`` (see :class:`lit_vae.images.Batch`), in three splits.

    Training batches are shuffled, whole, and the only ones that are augmented. Validation and test images come once
    each, in order, with noise that is the same each time. ``batch_size`` is that of one process: a step sees
    ``batch_size * processes`` images, the same ones for any number of processes with the same product.

    A concrete class calls ``save_hyperparameters()`` in its constructor; all arguments are plain values.

    Args:
        batch_size: images in a batch of one process.
        seed: of the split, the shuffling and all noise.
        preprocess: from eight-bit levels to ``x``.
        random_flip: mirror training images at random.
        problems: what the concrete class found wrong with its arguments.

    Raises:
        ValueError: naming everything that is wrong with the arguments.
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
        super().__init__()
        found = [*positive(batch_size=batch_size), *problems]
        if found:
            raise ValueError("\n".join(problem.text(self._component) for problem in found))
        self.batch_size = batch_size
        self.seed = seed
        self.preprocess = preprocess
        self.random_flip = random_flip
        self._sources: dict[Split, Source] = {}

    @property
    @abstractmethod
    def spec(self) -> ImageSpec:
        """What the images are, from the arguments alone."""

    @abstractmethod
    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs, once.

        Raises:
            ValueError, FileNotFoundError: the files are not what they should be.
        """
        for part in _PART_OF_STAGE[stage]:
            if ("train" if part == "fit" else "test") not in self._sources:
                self._sources.update(self.load(part))

    def train_dataloader(self) -> TensorLoader:
        """Return shuffled batches of ``batch_size``; what remains of an epoch after the last whole step is left out."""
        source = self.source("train")
        rank, world_size = self._place()
        if len(source) < self.batch_size * world_size:
            processes = f" x {world_size} processes" if world_size > 1 else ""
            raise ValueError(
                f"{self._component}: batch_size (={self.batch_size}){processes} must be at most the number of training "
                f"images (={len(source)}). Lower data.init_args.batch_size."
            )
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        order = TrainOrder(len(source), self.batch_size, self.seed, rank, world_size, shuffle=not overfit)
        transform: Preprocess = RandomFlip(self.preprocess) if self.random_flip else self.preprocess
        return self._loader(source, order, transform)

    def val_dataloader(self) -> TensorLoader:
        """Return this process's share of the validation images, in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> TensorLoader:
        """Return this process's share of the test images, in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> TensorLoader:
        """Return the same as :meth:`test_dataloader`."""
        return self._eval_loader("test")

    def ordered_dataloader(self, split: Split) -> TensorLoader:
        """Return all images of a split in order, in every process, without augmentation, the same each time."""
        source = self.source(split)
        return self._loader(source, EvalOrder(len(source), self.batch_size), self.preprocess)

    def example_batch(self, n: int, split: Split = "val") -> Batch:
        """Return the first ``n`` images of a split, on the CPU: the same bytes each time and in every process.

        Raises:
            ValueError: the split has fewer.
        """
        source = self.source(split)
        if not 1 <= n <= len(source):
            raise ValueError(
                f"{self._component}: n (={n}) must be between 1 and the number of {split} images (={len(source)}). "
                "Ask for fewer examples."
            )
        u, y, ids = source.read(torch.arange(n), FIXED)
        return Batch(self.preprocess(u, Draws(self.seed, FIXED, ids)), y)

    def source(self, split: Split) -> Source:
        """Return the images of a split, reading them at the first call."""
        self.setup("test" if split == "test" else "fit")
        return self._sources[split]

    @property
    def _component(self) -> str:
        return type(self).__name__

    def _eval_loader(self, split: Split) -> TensorLoader:
        source = self.source(split)
        if not len(source):
            raise ValueError(
                f"{self._component}: num_{split} (=0) leaves no {split} images. Raise data.init_args.num_{split}, or "
                f"provide such images."
            )
        return self._loader(source, EvalOrder(len(source), self.batch_size, *self._place()), self.preprocess)

    def _loader(self, source: Source, order: Order, transform: Preprocess) -> TensorLoader:
        """Return the loader that suits a source, on the trainer's device."""
        device = self._device()
        if isinstance(source, Tensors) and device.type == "cuda" and _fits(source, device):
            source = source.to(device)
        return TensorLoader(source, order, transform, self.seed, device)

    def _device(self) -> torch.device:
        """Return where batches are made."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process and how many there are, as they are now."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        return 0, 1


def hold_out(num_images: int, *sizes: int, seed: int) -> list[Tensor]:
    """Split ``range(num_images)`` at random: the rest, then parts of the given sizes, each in ascending order."""
    permutation = torch.randperm(num_images, generator=torch.Generator().manual_seed(seed))
    parts = permutation.split([*sizes, num_images - sum(sizes)])
    return [part.sort().values for part in (parts[-1], *parts[:-1])]


def _fits(source: Tensors, device: torch.device) -> bool:
    """Tell whether a split takes a small share of the free memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return source.images.nbytes < _DEVICE_SHARE * free
