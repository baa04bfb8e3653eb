"""The ranks of a distributed run, asked for when needed: a command line builds a model before there are any."""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether there is a process group, be it of one rank."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of ranks; 1 outside of a distributed run."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process; 0 outside of a distributed run."""
    return dist.get_rank() if is_distributed() else 0


def all_agree(here: bool, device: torch.device) -> bool:
    """Whether it is true on every rank. A collective: decisions about other collectives must be the same everywhere."""
    return bool(average_over_ranks(torch.tensor(float(here), device=device)) == 1.0)


def average_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, without gradient, the same bit by bit on each. A collective."""
    if world_size() == 1:
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the ranks, which are then equal bit by bit; one dtype, one all-reduce."""
    if world_size() == 1:
        return
    if len(tensors) == 1:
        dist.all_reduce(tensors[0])
        return
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    for tensor, total in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def mean_over_ranks(mean: Tensor) -> Tensor:
    """Mean over the ranks of a mean over as many elements on each, with the gradient of this rank's own.

    Averaged over ranks, as DDP does with gradients, that is the gradient of what one process would compute.
    """
    return mean if world_size() == 1 else mean + (average_over_ranks(mean) - mean.detach())


class RankPositions:
    """Counts along this rank's share of a split: the images ``rank, rank + W, ...`` in order.

    So a rank is given them by this project's data modules, and by torch's ``DistributedSampler`` without shuffling.
    """

    def __init__(self) -> None:
        self._seen = 0

    def indices(self, n: int, device: torch.device) -> Tensor:
        """Where the next ``n`` images of this rank stand in the split, ``(n,)`` int64."""
        first, self._seen = self._seen, self._seen + n
        return rank() + world_size() * torch.arange(first, first + n, device=device)
