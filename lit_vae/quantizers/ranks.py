"""The vectors of all ranks as if they were of one: rank ``r`` holds the ``r``-th block of them."""

import torch
import torch.distributed as dist
from torch import Generator, Tensor

from lit_vae.ranks import average_over_ranks, world_size


def sum_over_ranks(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the ranks, which are then equal bit by bit."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def mean_over_ranks(mean: Tensor) -> Tensor:
    """Mean over the ranks of a mean over as many elements on each, with the gradient of this rank's own.

    Averaged over ranks, as DDP does with gradients, that is the gradient of what one process would compute.
    """
    return mean if world_size() == 1 else mean + (average_over_ranks(mean) - mean.detach())


def draw_rows(z: Tensor, count: int, seed: int, step: int) -> Tensor:
    """At most ``count`` distinct rows of the vectors ``z (N, d)`` of all ranks, the same on every rank.

    They are a function of ``(seed, step)`` and of how many vectors there are, not of how these are distributed.
    """
    blocks = [len(z)]
    rank = 0
    if world_size() > 1:
        rank = dist.get_rank()
        sizes = torch.zeros(world_size(), dtype=torch.int64, device=z.device)
        sizes[rank] = len(z)
        dist.all_reduce(sizes)
        blocks = sizes.tolist()
    # a CPU generator looks at 32 bits of its seed
    generator = Generator().manual_seed((seed * 1_000_003 + step) % 2**32)
    positions = torch.randperm(sum(blocks), generator=generator)[:count] - sum(blocks[:rank])
    mine = (positions >= 0) & (positions < len(z))
    rows = z.new_zeros(len(positions), z.shape[1])
    rows[mine.to(z.device)] = z[positions[mine].to(z.device)]
    sum_over_ranks(rows)
    return rows
