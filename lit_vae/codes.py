"""Codes of images (indices into codebooks), and the description of a data set of codes.

A model with codes maps an image to one grid of indices per level, the coarsest level first: ``(B, h, w)`` int64 in
``0 .. K - 1``. Data modules of codes and priors over codes use the names below.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_vae.encoded import EncodedSpec


class CodeBatch(NamedTuple):
    """One batch: ``codes``, one ``(B, h, w)`` int64 per level, coarsest first, and labels ``y (B,)`` int64.

    Labels are -1 for data without labels.
    """

    codes: tuple[Tensor, ...]
    y: Tensor


@dataclass(frozen=True, kw_only=True)
class CodeSpec(EncodedSpec):
    """Description of a data set of codes, known before any code is read. See `EncodedSpec` for the other arguments.

    Args:
        grids: ``(h, w)`` of each level, coarsest first.
        num_embeddings: number ``K`` of codes of each level.
        distortion: mean ``-log p(x | codes)`` of each split, in nats per image.
    """

    grids: tuple[tuple[int, int], ...]
    num_embeddings: tuple[int, ...]
    distortion: dict[str, float]


class CodeStatistics(NamedTuple):
    """Use of the ``K`` codes of a level."""

    perplexity: Tensor
    """``exp(-sum_k p_k log p_k)`` of the shares ``p_k``, between 1 and the number of codes used; ``()`` float64."""

    usage: Tensor
    """Share of the codes that are used at least once, ``()`` float64."""

    counts: Tensor
    """Number of uses of each code, ``(K,)``."""


def code_statistics(counts: Tensor) -> CodeStatistics:
    """Perplexity and usage from counts ``(K,)``, in float64.

    Van den Oord et al., "Neural Discrete Representation Learning", 2017. Count the codes of a whole data set: the
    perplexity of one batch, as in their code, depends on the batch size.

    Raises:
        ValueError: nothing was counted.
    """
    total = counts.sum()
    if not total:
        raise ValueError("code_statistics: counts must not all be 0. Count the codes of at least one image first.")
    shares = counts.double() / total
    return CodeStatistics(torch.special.entr(shares).sum().exp(), (counts > 0).double().mean(), counts)


def count_codes(codes: Tensor, num_embeddings: int) -> Tensor:
    """Number of uses of each code in ``codes`` (any shape, integers): ``(K,)`` int64.

    Raises:
        ValueError: a code is outside ``0 .. K - 1``.
    """
    if codes.numel():
        low, high = (int(value) for value in codes.aminmax())
        if low < 0 or high >= num_embeddings:
            raise ValueError(
                f"count_codes: codes (={low} to {high}) must be between 0 and {num_embeddings - 1}. "
                f"Give num_embeddings (={num_embeddings}) of the model that made the codes."
            )
    return torch.bincount(codes.flatten(), minlength=num_embeddings)
