"""What the codes of an image are: indices into codebooks, and what a data set of them says of itself.

A model with codes turns an image into one grid of indices a level, the coarsest level first: ``(B, h, w)`` int64 in
``0 .. K - 1``. A data module of codes makes them, a prior over codes consumes them; both use the names below.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class CodeBatch(NamedTuple):
    """One batch: ``codes``, a ``(B, h, w)`` int64 for each level, coarsest first, and labels ``y (B,)`` int64.

    A label is -1 where there is none.
    """

    codes: tuple[Tensor, ...]
    y: Tensor


@dataclass(frozen=True)
class CodeSpec:
    """What a data set of codes says of itself before any of them is read.

    Args:
        grids: ``(h, w)`` of each level, coarsest first.
        num_embeddings: ``K`` of each level.
        num_classes: number of labels, 0 for codes without.
        checkpoint: of the model that made the codes, and decodes them.
        checkpoint_sha256: of that file.
        distortion: ``-log p(x | codes)`` by split, in nats, the mean over its images.
        bits_per_dim: ``(D, offset)``: ``n`` nats of an image are ``n / (D log 2) + offset`` bits per dimension; None
            where they are not the probability of any image.
        class_names: of the labels; empty where they are known by number alone.
    """

    grids: tuple[tuple[int, int], ...]
    num_embeddings: tuple[int, ...]
    num_classes: int
    checkpoint: str
    checkpoint_sha256: str
    distortion: dict[str, float]
    bits_per_dim: tuple[int, float] | None
    class_names: tuple[str, ...] = ()


class CodeStatistics(NamedTuple):
    """How the ``K`` codes of a level are used."""

    perplexity: Tensor
    """``exp(-sum_k p_k log p_k)`` of the shares ``p_k``, between 1 and the number of codes used; ``()`` float64."""

    usage: Tensor
    """Share of the codes that are used at least once, ``()`` float64."""

    counts: Tensor
    """How often each is used, ``(K,)``."""


def code_statistics(counts: Tensor) -> CodeStatistics:
    """Perplexity and usage from counts ``(K,)``, in float64.

    Van den Oord et al., "Neural Discrete Representation Learning", 2017, and its published code: there of one batch,
    which depends on the batch size; take the counts of a whole set.

    Raises:
        ValueError: nothing was counted.
    """
    total = counts.sum()
    if not total:
        raise ValueError("code_statistics: counts must not all be 0. Count the codes of at least one image first.")
    shares = counts.double() / total
    return CodeStatistics(torch.special.entr(shares).sum().exp(), (counts > 0).double().mean(), counts)


def count_codes(codes: Tensor, num_embeddings: int) -> Tensor:
    """How often each code occurs in ``codes`` (any shape, integers): ``(K,)`` int64.

    Raises:
        ValueError: a code is none of ``0 .. K - 1``.
    """
    if codes.numel():
        low, high = (int(value) for value in codes.aminmax())
        if low < 0 or high >= num_embeddings:
            raise ValueError(
                f"count_codes: codes (={low} to {high}) must be between 0 and {num_embeddings - 1}. "
                f"Give num_embeddings (={num_embeddings}) as the model that made them has it."
            )
    return torch.bincount(codes.flatten(), minlength=num_embeddings)
