"""The base of data modules of images and of codes: three splits, their order, and sharding over processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_vae import ranks
from lit_vae.data.checks import Problem
from lit_vae.data.loader import BatchT, Loader, Source, StoredT
from lit_vae.data.orders import EvalOrder, FixedOrder, Order, TrainOrder, example_order
from lit_vae.run.needs import Need

Split = Literal["train", "val", "test"]
Part = Literal["fit", "test"]
SPLITS: dict[Part, tuple[Split, ...]] = {"fit": ("train", "val"), "test": ("test",)}

_PART_OF_STAGE: dict[str | None, tuple[Part, ...]] = {
    None: ("fit", "test"),
    "fit": ("fit",),
    "validate": ("fit",),
    "test": ("test",),
    "predict": ("test",),
}


class SplitDataModule(LightningDataModule, ABC, Generic[StoredT, BatchT]):
    """Batches of three splits.

    Training batches are shuffled, and all have the same size. Validation and test items come once, in order.
    ``batch_size`` is that of one process: a step sees ``batch_size * processes`` images. For the same product they are
    the same images with any number of processes.

    A concrete class calls ``save_hyperparameters()`` in its constructor; all arguments are plain values.

    Args:
        batch_size: images in a batch of one process.
        seed: of everything random.
        problems: that the concrete class found in its arguments.

    Raises:
        ValueError: naming all problems.
    """

    def __init__(self, *, batch_size: int, seed: int, problems: Iterable[Problem] = ()) -> None:
        super().__init__()
        if found := list(problems):
            raise ValueError("\n".join(problem.text(self._component) for problem in found))
        self.batch_size = batch_size
        self.seed = seed
        self._sources: dict[Split, Source[StoredT]] = {}

    def needs(self) -> Iterable[Need]:
        """The files that must be there before the data are read; by default none."""
        return ()

    @abstractmethod
    def load(self, part: Part) -> dict[Split, Source[StoredT]]:
        """Read the splits of a part."""

    @abstractmethod
    def make_loader(self, source: Source[StoredT], order: Order, training: bool) -> Loader[StoredT, BatchT]:
        """Return a loader of a source, on the trainer's device."""

    @abstractmethod
    def make_example(self, source: Source[StoredT], indices: Tensor) -> BatchT:
        """Return the items at ``indices`` as in evaluation, on the CPU."""

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs, once.

        Raises:
            ValueError, FileNotFoundError: files are missing or damaged.
        """
        for part in _PART_OF_STAGE[stage]:
            if ("train" if part == "fit" else "test") not in self._sources:
                self._sources.update(self.load(part))

    def train_dataloader(self) -> Loader[StoredT, BatchT]:
        """Return shuffled batches of ``batch_size``, or of all images if there are fewer.

        The rest of an epoch that does not fill a batch is left out.
        """
        source = self.source("train")
        rank, world_size = self._place()
        batch_size = min(self.batch_size, len(source) // world_size)
        if batch_size < 1:
            raise ValueError(
                f"{self._component}: {len(source)} training images are fewer than the {world_size} processes. Lower "
                "trainer.devices."
            )
        if batch_size < self.batch_size:
            processes = f" x {world_size} processes" if world_size > 1 else ""
            rank_zero_warn(
                f"{self._component}: batch_size (={self.batch_size}){processes} is more than the {len(source)} training"
                f" images; batches are of {batch_size}{processes}. Set data.init_args.batch_size: {batch_size}.",
                category=UserWarning,
            )
        overfit = self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0
        order = TrainOrder(len(source), batch_size, self.seed, rank, world_size, shuffle=not overfit)
        return self.make_loader(source, order, training=True)

    def val_dataloader(self) -> Loader[StoredT, BatchT]:
        """Return this process's share of the validation images, in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> Loader[StoredT, BatchT]:
        """Return this process's share of the test images, in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> Loader[StoredT, BatchT]:
        """Return the same as :meth:`test_dataloader`."""
        return self._eval_loader("test")

    def ordered_dataloader(self, split: Split, share: bool = False) -> Loader[StoredT, BatchT]:
        """Return all images of a split in order, in every process, without augmentation, the same each time.

        With ``share`` each process gets only its part.
        """
        source = self.source(split)
        place = self._place() if share else (0, 1)
        return self.make_loader(source, EvalOrder(len(source), self.batch_size, *place), training=False)

    def example_batch(self, n: int, split: Split = "val") -> BatchT:
        """Return ``n`` images of a split, or all if there are fewer, on the CPU: the same bytes each time.

        They are spread over the split and its classes (`example_order`), and are the same in every process and in every
        run on the same data. If all images of a split are returned, they are in order.

        Raises:
            ValueError: ``n`` is less than 1, or the split is empty.
        """
        return self.make_example(self.source(split), self._examples(n, split))

    def example_dataloader(self, n: int, split: Split = "val") -> Loader[StoredT, BatchT]:
        """Return the images of :meth:`example_batch` in batches, in every process."""
        order = FixedOrder(self._examples(n, split).split(self.batch_size))
        return self.make_loader(self.source(split), order, training=False)

    def _examples(self, n: int, split: Split) -> Tensor:
        source = self._nonempty(split)
        if n < 1:
            raise ValueError(f"{self._component}: n (={n}) examples must be at least 1.")
        return example_order(source.classes())[:n] if n < len(source) else torch.arange(len(source))

    def source(self, split: Split) -> Source[StoredT]:
        """Return a split, reading it at the first call."""
        self.setup("test" if split == "test" else "fit")
        return self._sources[split]

    @property
    def _component(self) -> str:
        return type(self).__name__

    def _nonempty(self, split: Split) -> Source[StoredT]:
        source = self.source(split)
        if not len(source):
            raise ValueError(f"{self._component}: {self.why_empty(split)}")
        return source

    def why_empty(self, split: Split) -> str:
        """Return why a split is empty, with the remedy."""
        return f"num_{split} (=0) leaves no {split} images. Raise data.init_args.num_{split}, or provide such images."

    def _eval_loader(self, split: Split) -> Loader[StoredT, BatchT]:
        self._nonempty(split)
        return self.ordered_dataloader(split, share=True)

    def _device(self) -> torch.device:
        """Return the device on which batches are made."""
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return device if device.type == "cuda" else torch.device("cpu")

    def _place(self) -> tuple[int, int]:
        """Return the rank of this process, and the number of processes."""
        if ranks.is_distributed():
            return ranks.rank(), ranks.world_size()
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        return 0, 1
