"""Loaders that shard over processes and resume in mid-epoch, exactly.

The order of an epoch is a function of (seed, epoch) and the noise of an image one of (seed, epoch, image), so the whole
state of a loader is where it stands: epoch and batches served. Lightning saves it in the checkpoint and restores it.
Neither loader is a ``DataLoader``, so Lightning injects no ``DistributedSampler``: sharding is done here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_vae.data.noise import FIXED, ORDER, Draws, key
from lit_vae.data.preprocess import Preprocess
from lit_vae.images import Batch


class Raw(NamedTuple):
    """Images as stored: ``u (B, C, H, W)`` uint8, labels ``y (B,)`` int64, ``ids (B,)`` int64 within the data set."""

    u: Tensor
    y: Tensor
    ids: Tensor


class Source(Protocol):
    """The images of one split, by index."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor, epoch: int) -> Raw:
        """Read the images at ``indices (B,)``; ``epoch`` seeds random crops."""


@dataclass(frozen=True)
class Tensors:
    """A split held in memory, as one tensor each: see :class:`Raw`."""

    images: Tensor
    labels: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Tensor, epoch: int = FIXED) -> Raw:
        """Read the images at ``indices (B,)``."""
        indices = indices.to(self.images.device)
        # index_select copies whole images; indexing by [] goes value by value
        return Raw(*(t.index_select(0, indices) for t in (self.images, self.labels, self.ids)))

    def to(self, device: torch.device) -> "Tensors":
        """Return the split on a device."""
        return Tensors(self.images.to(device), self.labels.to(device), self.ids.to(device))


class Order(Protocol):
    """Which images a process reads when."""

    epoch: int
    served: int

    def __len__(self) -> int: ...

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of a batch of this process."""

    def begin(self) -> None:
        """Start a pass."""

    def advance(self, batch: int) -> None:
        """Note that a batch is handed out."""


class TrainOrder:
    """Shuffled epochs in global batches of ``batch_size * world_size`` images; the last, partial one is dropped.

    Every process draws the same permutation and takes its slice of each global batch: ``W`` processes of ``B`` images
    see together, batch by batch, what one process of ``W B`` sees. ``shuffle=False`` is for Lightning's
    ``overfit_batches``, which needs the same batches in each epoch.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, shuffle: bool = True
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.shuffle = rank, world_size, shuffle
        self.epoch = 0
        self.served = 0
        self._left_open = False  # a pass has handed out batches and not come to its end
        self._permutation: tuple[int, Tensor] = (FIXED, torch.empty(0, dtype=torch.int64))

    def __len__(self) -> int:
        return self.num_images // (self.batch_size * self.world_size)

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of a batch of this process, ``(batch_size,)``."""
        if self._permutation[0] != epoch:
            self._permutation = (epoch, self._order(epoch))
        start = (batch * self.world_size + self.rank) * self.batch_size
        return self._permutation[1][start : start + self.batch_size]

    def begin(self) -> None:
        """Start a pass: where a checkpoint left off, or a new epoch. Starting twice without reading changes nothing."""
        if self._left_open:
            self._move_to(self.epoch + 1)

    def advance(self, batch: int) -> None:
        """Note that a batch is handed out (Lightning never asks for the one after the last)."""
        self.served, self._left_open = batch + 1, True
        if self.served == len(self):
            self._move_to(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Go on to the trainer's epoch, where it left one early (``limit_train_batches``); never back.

        Lightning calls this at the start of each epoch for a loader's ``batch_sampler.sampler``.
        """
        if epoch > self.epoch:
            self._move_to(epoch)

    @property
    def sampler(self) -> "TrainOrder":
        """What Lightning looks for in a batch sampler, to call ``set_epoch``."""
        return self

    def state_dict(self) -> dict[str, int]:
        """Return the position, and what it is a position in."""
        return {"epoch": self.epoch, "batches": self.served, **self._frame()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises:
            ValueError: in mid-epoch, where the batches of that epoch are not those of this order.
        """
        changed = [f"{name} was {state[name]}, is {now}" for name, now in self._frame().items() if state[name] != now]
        if changed and state["batches"]:
            raise ValueError(
                f"TrainOrder: the checkpoint was saved in mid-epoch (batch {state['batches']} of epoch "
                f"{state['epoch']}), but {'; '.join(changed)}. Resume with the same data, data.init_args.seed and "
                "batch_size x processes, or from a checkpoint saved at the end of an epoch."
            )
        self._move_to(state["epoch"])
        self.served = state["batches"]

    def _frame(self) -> dict[str, int]:
        return {"num_images": self.num_images, "global_batch": self.batch_size * self.world_size, "seed": self.seed}

    def _move_to(self, epoch: int) -> None:
        self.epoch, self.served, self._left_open = epoch, 0, False

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.num_images)
        generator = torch.Generator().manual_seed(key(self.seed, epoch, ORDER))
        return torch.randperm(self.num_images, generator=generator)


class EvalOrder:
    """All images once, in order: process ``rank`` has the images ``rank, rank + W, ...``; none is padded or dropped.

    Every process has the same number of batches, and the last ones are cut short where a process has an image less, so
    that collective operations in a step do not hang.
    """

    epoch = FIXED
    served = 0

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        mine = torch.arange(rank, num_images, world_size)
        most = -(-num_images // world_size)
        num_batches = -(-most // batch_size)
        # Each batch leaves at least one image for each that follows.
        ends = [min((b + 1) * batch_size, len(mine) - (num_batches - 1 - b)) for b in range(num_batches)]
        starts = [0, *ends[:-1]]
        self._batches = [mine[start:end] for start, end in zip(starts, ends, strict=True) if end > start]

    def __len__(self) -> int:
        return len(self._batches)

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of a batch of this process."""
        return self._batches[batch]

    def begin(self) -> None:
        """Start a pass."""

    def advance(self, batch: int) -> None:
        """Note that a batch is handed out."""


class TensorLoader:
    """Batches of a source that is fast to read, without workers.

    Args:
        source: the images.
        order: which of them when.
        transform: makes the float batch, on ``device``.
        seed: of the noise.
        device: where batches are made; the source may lie there too.
    """

    def __init__(
        self, source: Source, order: Order, transform: Preprocess, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        self.source, self.batch_sampler, self.transform, self.seed = source, order, transform, seed
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.batch_sampler.begin()
        return self._pass()

    def state_dict(self) -> dict[str, int]:
        """Return where the loader stands; an evaluation loader stands nowhere."""
        return self.batch_sampler.state_dict() if isinstance(self.batch_sampler, TrainOrder) else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where a loader stood: the next batch is the one that would have come there."""
        if isinstance(self.batch_sampler, TrainOrder):
            self.batch_sampler.load_state_dict(state)

    def _pass(self) -> Iterator[Batch]:
        order = self.batch_sampler
        epoch, first = order.epoch, order.served  # read now, at the first batch: Lightning sets the epoch after iter()
        for batch, raw in enumerate(self._read(epoch, first), start=first):
            made = self._make(raw, epoch)
            order.advance(batch)
            yield made

    def _read(self, epoch: int, first: int) -> Iterator[Raw]:
        for batch in range(first, len(self)):
            yield self.source.read(self.batch_sampler.indices(epoch, batch), epoch)

    def _make(self, raw: Raw, epoch: int) -> Batch:
        u, y, ids = (t.to(self.device, non_blocking=True) for t in raw)
        return Batch(self.transform(u, Draws(self.seed, epoch, ids)), y)


class WorkerLoader(TensorLoader):
    """Batches of a source that is slow to read: worker processes decode, the uint8 batches are pinned for a GPU.

    Workers need no random state: what they draw is a function of (seed, epoch, image).
    """

    def __init__(self, *args: Any, num_workers: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan = _Plan(self.batch_sampler)
        self._workers: DataLoader[Raw] = DataLoader(
            Reader(self.source),
            batch_sampler=self._plan,
            collate_fn=as_read,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def _read(self, epoch: int, first: int) -> Iterator[Raw]:
        self._plan.epoch, self._plan.first = epoch, first
        yield from self._workers


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

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitems__(self, keys: list[tuple[int, int]]) -> Raw:
        return self.source.read(torch.tensor([index for _, index in keys]), epoch=keys[0][0])


def as_read(batch: Any) -> Any:
    """Collate a batch that :class:`Reader` read whole."""
    return batch
