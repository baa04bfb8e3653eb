"""Codebooks of a vector quantizer, trained by moving averages or by gradient."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.ranges import BelowOne, PositiveFloat, checked

# Scores in memory at once: few enough for the cache of a CPU, many enough to keep a GPU busy.
_SCORES = {"cpu": 2**19, "cuda": 2**26}
_MIN_ROWS = 256  # a matrix product with fewer rows is slow, so the codes are tiled as well


class Codebook(nn.Module, ABC):
    """K vectors, and a moving average of how often each is used.

    Attributes:
        weight: ``(K, d)``, the vectors.
        counts: ``(K,)``, moving average of the number of vectors per batch (of all ranks) with this code; first 1.

    Args:
        num_embeddings: set by the quantizer.
        embedding_dim: set by the quantizer.
        decay: decay of the moving averages per training step.
    """

    weight: Tensor
    counts: Tensor

    @checked
    def __init__(self, num_embeddings: int, embedding_dim: int, decay: BelowOne) -> None:
        super().__init__()
        self.decay = decay
        self._create(torch.randn(num_embeddings, embedding_dim) / math.sqrt(embedding_dim))
        self.register_buffer("counts", torch.ones(num_embeddings))

    @abstractmethod
    def _create(self, weight: Tensor) -> None:
        """Keep the initial vectors ``(K, d)`` as ``self.weight``, a buffer or a parameter."""

    def terms(self, z: Tensor, e: Tensor) -> dict[str, Tensor]:
        """Losses ``(B,)`` that train the codebook, from ``z (B, P, d)`` and their codes' vectors ``e (B, P, d)``."""
        return {}

    @torch.no_grad()
    def sums_of(self, z: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
        """Sums for `update`, of this rank, from vectors ``z (N, d)`` of a batch and their codes ``indices (N,)``."""
        if not self.counts.dtype.itemsize >= 4:
            raise ValueError(
                f"{type(self).__name__}: its state (={self.counts.dtype}) must be float32 or float64: a moving average"
                " does not move in half precision. Set trainer.precision=bf16-mixed, not bf16-true."
            )
        return self._sums_of(z.to(self.counts.dtype), indices)

    def _sums_of(self, z: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
        return (counts_by_code(z, indices, len(self.counts)),)

    @torch.no_grad()
    def update(self, counts: Tensor, *sums: Tensor) -> None:
        """Update with a training batch, given its `sums_of` over all ranks: ``counts (K,)``."""
        self.counts.lerp_(counts, 1.0 - self.decay)

    @torch.no_grad()
    def center(self, codes: Tensor) -> Tensor:
        """Mean of ``codes (K, d)`` weighted by their use, ``-> (d,)``: unused codes may be far away."""
        counts = self.counts.to(codes.dtype)
        return counts @ codes / counts.sum()

    @torch.no_grad()
    def replace(self, indices: Tensor, vectors: Tensor) -> None:
        """Replace the vectors of the codes ``indices (M,)`` by ``(M, d)`` and reset their state."""
        self.weight[indices] = vectors.to(self.weight.dtype)
        self.counts[indices] = 1.0


class EMACodebook(Codebook):
    """Each code is a moving average of the vectors that chose it; no gradient.

    van den Oord et al., "Neural Discrete Representation Learning", 2017, appendix A.1: with ``n_k`` vectors of a batch
    at code k, and their sum ``s_k``,

        N_k <- g N_k + (1 - g) n_k,    m_k <- g m_k + (1 - g) s_k,    e_k = m_k / N_k,

    where ``N_k`` is smoothed to ``(N_k + epsilon) / (N + K epsilon) N``, ``N = sum_k N_k``. Codes that the batch did
    not choose stay as they are. Counts start at one and sums at the codes: from zero, a code that is not used at once
    would be divided by ``epsilon``.

    Args:
        num_embeddings: set by the quantizer.
        embedding_dim: set by the quantizer.
        decay: g; 0 makes a step one iteration of k-means.
        epsilon: smoothing constant, > 0.
    """

    sums: Tensor

    @checked
    def __init__(
        self, num_embeddings: int, embedding_dim: int, decay: BelowOne = 0.99, epsilon: PositiveFloat = 1e-5
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, decay)
        self.epsilon = epsilon

    def _create(self, weight: Tensor) -> None:
        self.register_buffer("weight", weight)
        self.register_buffer("sums", weight.clone())

    def _sums_of(self, z: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
        return sums_by_code(z, indices, len(self.counts))

    @torch.no_grad()
    def update(self, counts: Tensor, *sums: Tensor) -> None:
        """The equations above: ``n_k`` is ``counts (K,)``, and ``s_k`` is ``sums[0] (K, d)``."""
        super().update(counts)
        self.sums.lerp_(sums[0], 1.0 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + self.epsilon) / (total + len(counts) * self.epsilon) * total
        # smoothing would shrink a code that is never chosen to zero once N falls below epsilon
        chosen = (counts > 0.0).unsqueeze(1)
        self.weight.copy_(torch.where(chosen, self.sums / smoothed.unsqueeze(1), self.weight))

    @torch.no_grad()
    def replace(self, indices: Tensor, vectors: Tensor) -> None:
        """Also replace the sum: otherwise the next update would bring the old vector back."""
        super().replace(indices, vectors)
        self.sums[indices] = self.weight[indices]


class GradientCodebook(Codebook):
    """Vectors trained by the optimizer on ``||sg(z_e) - e||^2`` (van den Oord et al. 2017, eq. 3, second term).

    Args:
        num_embeddings: set by the quantizer.
        embedding_dim: set by the quantizer.
        decay: decay of the usage counts, which only tell which codes are dead.
    """

    @checked
    def __init__(self, num_embeddings: int, embedding_dim: int, decay: BelowOne = 0.99) -> None:
        super().__init__(num_embeddings, embedding_dim, decay)

    def _create(self, weight: Tensor) -> None:
        self.weight = nn.Parameter(weight)

    def terms(self, z: Tensor, e: Tensor) -> dict[str, Tensor]:
        """``codebook``: the squared distance, with a gradient to the codes only."""
        return {"codebook": squared_error(z.detach(), e)}


CodebookFactory = Callable[[int, int], Codebook]
"""``(num_embeddings, embedding_dim) -> codebook``: a class of this module with its other arguments filled in."""


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """``||a - b||^2`` summed over all but the first dimension: ``(B, ...) -> (B,)``."""
    # mse_loss stores fewer intermediate tensors than a squared difference
    return F.mse_loss(a, b, reduction="none").flatten(1).sum(1)


@torch.no_grad()
def nearest_codes(z: Tensor, codes: Tensor, center: Tensor | None = None) -> Tensor:
    """``argmin_k ||z_n - e_k||^2`` for each vector: ``z (N, d), codes (K, d) -> (N,)`` int64.

    The scores are ``|e|^2 - 2 z.e``, because ``|z|^2`` does not change the minimum. The origin is ``center (d,)``, by
    default the mean of the codes: far from the origin an expanded square loses digits. ``center`` must not depend on
    ``z``, or the choice between two nearly equal codes would depend on the batch. Distances that differ by no more than
    rounding may swap codes. On a GPU, ``torch.set_float32_matmul_precision`` applies, by default full float32.
    """
    center = codes.mean(0) if center is None else center
    codes = codes - center
    budget = _SCORES.get(z.device.type, _SCORES["cuda"])
    columns = min(len(codes), budget // _MIN_ROWS)
    rows = max(1, min(len(z), budget // columns))
    squares = codes.square().sum(1)
    buffer = z.new_empty(rows * columns)
    indices = torch.empty(len(z), dtype=torch.int64, device=z.device)
    for start in range(0, len(z), rows):
        x = z[start : start + rows] - center
        best: Tensor | None = None
        for first in range(0, len(codes), columns):
            e = codes[first : first + columns]
            scores = buffer[: len(x) * len(e)].view(len(x), len(e))
            torch.addmm(squares[first : first + columns], x, e.T, alpha=-2, out=scores)
            least, index = scores.min(1)  # on a CPU twice as fast as argmin
            if best is None:
                best, found = least, index
            else:
                found = torch.where(least < best, index + first, found)
                best = torch.minimum(least, best)
        indices[start : start + rows] = found
    return indices


@torch.no_grad()
def sums_by_code(z: Tensor, indices: Tensor, num_embeddings: int) -> tuple[Tensor, Tensor]:
    """Number and sum of each code's vectors: ``z (N, d), indices (N,) -> (K,), (K, d)``, in the dtype of ``z``."""
    sums = z.new_zeros(num_embeddings, z.shape[1]).index_add_(0, indices, z)
    return counts_by_code(z, indices, num_embeddings), sums


def counts_by_code(z: Tensor, indices: Tensor, num_embeddings: int) -> Tensor:
    """Number of each code's vectors: ``z (N, d), indices (N,) -> (K,)``, in the dtype of ``z``."""
    return z.new_zeros(num_embeddings).index_add_(0, indices, z.new_ones(1).expand(len(z)))
