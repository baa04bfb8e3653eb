"""Initial codes by k-means, and revival of dead codes."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lit_vae.quantizers.codebook import nearest_codes, sums_by_code
from lit_vae.ranges import NotNegativeInt, OpenUnitInterval, PositiveInt, Seed, checked
from lit_vae.ranks import rank, sum_over_ranks, world_size


class KMeans:
    """Initial codes: the centres of k-means on the vectors of a batch, of all ranks.

    It starts from vectors of the batch, repeated if they are fewer than the codes.

    Args:
        batches: number of first batches that each start the codebook anew, since the encoder changes fastest then.
        iterations: of Lloyd's algorithm; 0 uses the vectors themselves.
        seed: of the choice of vectors.
    """

    @checked
    def __init__(self, batches: PositiveInt = 1, iterations: NotNegativeInt = 10, seed: Seed = 0) -> None:
        self.batches, self.iterations, self.seed = batches, iterations, seed

    def __call__(self, z: Tensor, num_embeddings: int, step: int, normalize: bool) -> Tensor:
        """Codes ``(K, d)`` from the vectors ``z (N, d)`` of all ranks; on the unit sphere if ``normalize``."""
        drawn = draw_rows(z, num_embeddings, self.seed, step)
        codes = drawn[torch.arange(num_embeddings, device=z.device) % len(drawn)]
        for _ in range(self.iterations):
            counts, sums = sums_by_code(z, nearest_codes(z, codes), num_embeddings)
            sum_over_ranks(counts, sums)
            means = sums / counts.clamp_min(1.0).unsqueeze(1)
            codes = torch.where(counts.unsqueeze(1) > 0.0, means, codes)
            codes = F.normalize(codes, dim=1) if normalize else codes
        return codes


class Revival:
    """Replaces each dead code by a random vector of the current batch (of all ranks) and resets its count.

    Łańcucki et al., "Robust Training of Vector Quantized Bottleneck Models", 2020; Dhariwal et al., "Jukebox", 2020,
    sec. 3.1. With a `GradientCodebook`, the optimizer's state of a revived code stays.

    Args:
        threshold: in (0, 1). A code is dead if its average count per step is below it. Counts start at one, so with a
            decay of 0.99 a code that is never chosen is dead after ``log(0.01) / log(0.99) = 459`` steps.
        every_n_steps: training steps between two checks of the counts; each check waits for the GPU.
        seed: of the choice of vectors.
    """

    @checked
    def __init__(self, threshold: OpenUnitInterval = 0.01, every_n_steps: PositiveInt = 10, seed: Seed = 0) -> None:
        self.threshold, self.every_n_steps, self.seed = threshold, every_n_steps, seed

    def __call__(self, z: Tensor, counts: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Indices ``(M,)`` of dead codes, given ``counts (K,)``, and a new vector for each ``(M, d)``.

        ``z (N, d)`` are this rank's vectors. No vector is used twice; if there are too few, some codes stay dead.
        """
        dead = (counts < self.threshold).nonzero().squeeze(1)
        if len(dead) == 0:
            return dead, z[:0]
        vectors = draw_rows(z, len(dead), self.seed, step)
        return dead[: len(vectors)], vectors


def draw_rows(z: Tensor, count: int, seed: int, step: int) -> Tensor:
    """At most ``count`` distinct rows of the vectors ``z (N, d)`` of all ranks, the same on every rank.

    The choice depends on ``(seed, step)`` and the total number of vectors, not on their distribution over ranks.
    """
    blocks = [len(z)]
    if world_size() > 1:
        sizes = torch.zeros(world_size(), dtype=torch.int64, device=z.device)
        sizes[rank()] = len(z)
        sum_over_ranks(sizes)
        blocks = sizes.tolist()
    # a CPU generator uses 32 bits of its seed
    generator = Generator().manual_seed((seed * 1_000_003 + step) % 2**32)
    positions = torch.randperm(sum(blocks), generator=generator)[:count] - sum(blocks[: rank()])
    mine = (positions >= 0) & (positions < len(z))
    rows = z.new_zeros(len(positions), z.shape[1])
    rows[mine.to(z.device)] = z[positions[mine].to(z.device)]
    sum_over_ranks(rows)
    return rows
