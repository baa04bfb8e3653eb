"""The nearest code of each vector, and sums by code, without any matrix of all vectors against all codes."""

import torch
from torch import Tensor

# Scores held at once: on a CPU as many as stay in its cache, on a GPU enough to fill it.
_SCORES = {"cpu": 2**19, "cuda": 2**26}
_MIN_ROWS = 256  # below it a product of matrices is slow, so the codes are tiled as well


@torch.no_grad()
def nearest_codes(z: Tensor, codes: Tensor, center: Tensor | None = None) -> Tensor:
    """``argmin_k ||z_n - e_k||^2`` for each vector: ``z (N, d), codes (K, d) -> (N,)`` int64.

    The scores are ``|e|^2 - 2 z.e``, since ``|z|^2`` changes no minimum, with ``center (d,)`` as the origin: far from
    it, an expanded square loses its digits. By default it is the codes' mean. It must not depend on ``z``, or a vector
    would get another of two nearly equal codes in another batch. Codes whose distances differ by no more than their
    rounding may be exchanged. On a GPU the product follows ``torch.set_float32_matmul_precision``, by default full
    float32.
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
    counts = z.new_zeros(num_embeddings).index_add_(0, indices, z.new_ones(1).expand(len(z)))
    sums = z.new_zeros(num_embeddings, z.shape[1]).index_add_(0, indices, z)
    return counts, sums
