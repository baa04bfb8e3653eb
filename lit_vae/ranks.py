"""Ranks of a distributed run. Ask when needed, not in constructors: models are built before the ranks exist."""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether there is a process group (even of one rank)."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of ranks; 1 outside of a distributed run."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process; 0 outside of a distributed run."""
    return dist.get_rank() if is_distributed() else 0


def all_agree(here: bool, device: torch.device) -> bool:
    """Whether ``here`` is true on every rank. A collective, like the next three: all ranks must call it together."""
    return bool(average_over_ranks(torch.tensor(float(here), device=device)) == 1.0)


def average_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, without gradient and bitwise equal on all ranks."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace tensors of one dtype by their sums over the ranks, bitwise equal on all ranks, in one all-reduce."""
    if world_size() == 1 or not tensors:
        return
    if len(tensors) == 1:
        dist.all_reduce(tensors[0])
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    for tensor, total in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def mean_over_ranks(mean: Tensor) -> Tensor:
    """Mean over the ranks of a mean over equally many elements on each, with this rank's gradient.

    DDP averages gradients over ranks, which gives the gradient of one process with all elements.
    """
    return mean if world_size() == 1 else mean + (average_over_ranks(mean) - mean.detach())


class RankPositions:
    """Positions of this rank's images in a split: ``rank, rank + W, ...`` in order.

    This project's data modules, and torch's ``DistributedSampler`` without shuffling, distribute images this way.
    """

    def __init__(self) -> None:
        self._seen = 0

    def indices(self, n: int, device: torch.device) -> Tensor:
        """Positions of the next ``n`` images of this rank in the split, ``(n,)`` int64."""
        first, self._seen = self._seen, self._seen + n
        return rank() + world_size() * torch.arange(first, first + n, device=device)
