"""The order of images in each process: shuffled epochs that can be resumed, and evaluation in order."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lit_vae.noise import EXAMPLES, FIXED, ORDER, key, uniform


class Order(Protocol):
    """The order in which a process reads images."""

    epoch: int
    served: int

    def __len__(self) -> int: ...

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of a batch of this process."""

    def begin(self) -> None:
        """Start a pass."""

    def advance(self, batch: int) -> None:
        """Note that a batch was served."""


class TrainOrder:
    """Shuffled epochs in global batches of ``batch_size * world_size`` images; the last, partial one is dropped.

    Every process draws the same permutation and takes its part of each global batch. So ``W`` processes of ``B`` images
    see together the batches of one process with ``W B`` images. ``shuffle=False`` is for Lightning's
    ``overfit_batches``, which needs the same batches in each epoch.
    """

    def __init__(
        self, num_images: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, shuffle: bool = True
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.shuffle = rank, world_size, shuffle
        self.epoch = 0
        self.served = 0
        self._pass_begun = False  # a pass has begun and has not ended
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
        """Start a pass: a new epoch, or after a resume the rest of one. A second start in a row changes nothing."""
        if self._pass_begun:
            self._move_to(self.epoch + 1)

    def advance(self, batch: int) -> None:
        """Note that a batch was served (Lightning never asks for one after the last)."""
        self.served, self._pass_begun = batch + 1, True
        if self.served == len(self):
            self._move_to(self.epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Move forward to the trainer's epoch if the last one ended early (``limit_train_batches``).

        Lightning calls this at the start of each epoch for a loader's ``batch_sampler.sampler``.
        """
        if epoch > self.epoch:
            self._move_to(epoch)

    @property
    def sampler(self) -> "TrainOrder":
        """Lightning calls ``set_epoch`` of this attribute."""
        return self

    def state_dict(self) -> dict[str, int]:
        """Return the position, and what the order depends on."""
        return {"epoch": self.epoch, "batches": self.served, **self._batches_depend_on()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises:
            ValueError: the position is within an epoch, and the batches of this order are different.
        """
        changed = [
            f"{name} was {state[name]}, is {now}"
            for name, now in self._batches_depend_on().items()
            if state[name] != now
        ]
        if changed and state["batches"]:
            raise ValueError(
                f"TrainOrder: the checkpoint was saved within an epoch (batch {state['batches']} of epoch "
                f"{state['epoch']}), but {'; '.join(changed)}. Resume with the same data, data.init_args.seed and "
                "batch_size x processes, or from a checkpoint saved at the end of an epoch."
            )
        self._move_to(state["epoch"])
        self.served = state["batches"]

    def _batches_depend_on(self) -> dict[str, int]:
        return {"num_images": self.num_images, "global_batch": self.batch_size * self.world_size, "seed": self.seed}

    def _move_to(self, epoch: int) -> None:
        self.epoch, self.served, self._pass_begun = epoch, 0, False

    def _order(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.num_images)
        generator = torch.Generator().manual_seed(key(self.seed, epoch, ORDER))
        return torch.randperm(self.num_images, generator=generator)


class FixedOrder:
    """The same batches in each pass, given by the indices of their images."""

    epoch = FIXED
    served = 0

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def indices(self, epoch: int, batch: int) -> Tensor:
        """Return the indices of a batch of this process."""
        return self._batches[batch]

    def begin(self) -> None:
        """Start a pass."""

    def advance(self, batch: int) -> None:
        """Note that a batch was served."""


class EvalOrder(FixedOrder):
    """All images once, in order: process ``rank`` has the images ``rank, rank + W, ...``, without padding.

    Every process has the same number of batches, so that collective operations do not hang. If a process has an image
    less than others, its last batches are smaller.
    """

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        mine = torch.arange(rank, num_images, world_size)
        most = -(-num_images // world_size)
        num_batches = -(-most // batch_size)
        # each batch leaves at least one image for each later batch
        ends = [min((b + 1) * batch_size, len(mine) - (num_batches - 1 - b)) for b in range(num_batches)]
        starts = [0, *ends[:-1]]
        super().__init__([mine[start:end] for start, end in zip(starts, ends, strict=True) if end > start])


def example_order(labels: Tensor) -> Tensor:
    """An order whose first n images are spread over the split and its classes, for every n: ``(N,) -> (N,)``.

    One random image of each class, then a second one of each, and so on. The seed is fixed, so runs with different
    seeds show the same images.
    """
    shuffled = uniform(torch.arange(len(labels)), 1, seed=0, time=FIXED, stream=EXAMPLES)[:, 0].argsort(stable=True)
    _, of, counts = labels[shuffled].unique(return_inverse=True, return_counts=True)
    by_class = of.argsort(stable=True)
    rounds = torch.empty_like(by_class)
    rounds[by_class] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[of[by_class]]
    return shuffled[rounds.argsort(stable=True)]
