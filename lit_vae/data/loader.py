"""Loaders that shard over processes and resume exactly in the middle of an epoch.

The order of an epoch is a function of (seed, epoch), and the noise of an image one of (seed, epoch, image). So the
state of a loader is its position: the epoch and the number of batches served. Lightning saves it in the checkpoint. No
loader is a ``DataLoader``, so Lightning adds no ``DistributedSampler``.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_vae.data.orders import Order, TrainOrder
from lit_vae.data.preprocess import Preprocess
from lit_vae.images import Batch
from lit_vae.noise import FIXED, Draws

StoredT = TypeVar("StoredT")  # a stored batch, such as `Raw`
StoredT_co = TypeVar("StoredT_co", covariant=True)
BatchT = TypeVar("BatchT")  # a batch as a model sees it


class Raw(NamedTuple):
    """Images as stored: ``u (B, C, H, W)`` uint8, labels ``y (B,)`` int64, ``ids (B,)`` int64 within the data set."""

    u: Tensor
    y: Tensor
    ids: Tensor


class Source(Protocol[StoredT_co]):
    """The items of a split, by index."""

    def __len__(self) -> int: ...

    def classes(self) -> Tensor:
        """Return the label of each index, ``(N,)`` on the CPU."""

    def read(self, indices: Tensor, epoch: int) -> StoredT_co:
        """Read the items at ``indices (B,)``; ``epoch`` seeds random crops."""


@dataclass(frozen=True)
class Tensors:
    """A split in memory, see :class:`Raw`."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def classes(self) -> Tensor:
        """Return the label of each image."""
        return self.labels.cpu()

    def read(self, indices: Tensor, epoch: int = FIXED) -> Raw:
        """Read the images at ``indices (B,)``."""
        indices = indices.to(self.images.device)
        # faster than indexing by [], since it copies whole images
        return Raw(*(t.index_select(0, indices) for t in (self.images, self.labels, self.ids)))

    def to(self, device: torch.device) -> "Tensors":
        """Return the split on a device."""
        return Tensors(self.images.to(device), self.labels.to(device), self.ids.to(device))


class Loader(ABC, Generic[StoredT, BatchT]):
    """Batches of a source that is fast to read, without workers; a concrete class makes them on ``device``."""

    def __init__(self, source: Source[StoredT], order: Order, device: torch.device | str = "cpu") -> None:
        self.source, self.batch_sampler, self.device = source, order, torch.device(device)

    @abstractmethod
    def make(self, stored: StoredT, epoch: int) -> BatchT:
        """Turn a stored batch into the batch that a model sees."""

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[BatchT]:
        self.batch_sampler.begin()
        return self._pass()

    def state_dict(self) -> dict[str, int]:
        """Return the position of a training loader; empty for evaluation."""
        return self.batch_sampler.state_dict() if isinstance(self.batch_sampler, TrainOrder) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position: the next batch is the one that followed it."""
        if isinstance(self.batch_sampler, TrainOrder):
            self.batch_sampler.load_state_dict(state)

    def _pass(self) -> Iterator[BatchT]:
        order = self.batch_sampler
        epoch, first = order.epoch, order.served  # read at the first batch, since Lightning sets the epoch after iter()
        for batch, stored in enumerate(self._read(epoch, first), start=first):
            made = self.make(stored, epoch)
            order.advance(batch)
            yield made

    def _read(self, epoch: int, first: int) -> Iterator[StoredT]:
        for batch in range(first, len(self)):
            yield self.source.read(self.batch_sampler.indices(epoch, batch), epoch)


class TensorLoader(Loader[Raw, Batch]):
    """Batches of images, which ``transform`` makes on ``device``. The source may be there, too."""

    def __init__(
        self, source: Source[Raw], order: Order, transform: Preprocess, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(source, order, device)
        self.transform, self.seed = transform, seed

    def make(self, stored: Raw, epoch: int) -> Batch:
        """Move the levels to ``device`` and transform them there."""
        u, y, ids = (t.to(self.device, non_blocking=True) for t in stored)
        return Batch(self.transform(u, Draws(self.seed, epoch, ids)), y)


class WorkerLoader(TensorLoader):
    """Batches of a source that is slow to read: worker processes decode uint8 batches, which are pinned for a GPU.

    Workers need no random state: random crops are a function of (seed, epoch, image).
    """

    def __init__(self, *args: Any, num_workers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_workers = num_workers
        self._plan = _Plan(self.batch_sampler)
        self.close()

    def close(self) -> None:
        """End the workers; the next pass starts others.

        A loader that is garbage within a cycle of references would wait five seconds for each of them: by then Python
        has closed the queues through which they are told.
        """
        self._workers: DataLoader[Raw] = DataLoader(
            Reader(self.source),
            batch_sampler=self._plan,
            collate_fn=as_read,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
        )

    def _read(self, epoch: int, first: int) -> Iterator[Raw]:
        self._plan.epoch, self._plan.first = epoch, first
        yield from self._workers


def ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in a worker: the training process gets it, too, saves, and ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Plan:
    """Tells the workers which images come next: lists of (epoch, index)."""

    def __init__(self, order: Order) -> None:
        self.order, self.epoch, self.first = order, FIXED, 0

    def __len__(self) -> int:
        return len(self.order) - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in range(self.first, len(self.order)):
            yield [(self.epoch, i) for i in self.order.indices(self.epoch, batch).tolist()]


class Reader(Dataset[Raw]):
    """Reads a whole batch at once, given as a list of (epoch, index), in a worker."""

    def __init__(self, source: Source[Raw]) -> None:
        self.source = source

    def __getitems__(self, keys: list[tuple[int, int]]) -> Raw:
        return self.source.read(torch.tensor([index for _, index in keys]), epoch=keys[0][0])


def as_read(batch: Any) -> Any:
    """Collate a batch that :class:`Reader` read whole."""
    return batch
