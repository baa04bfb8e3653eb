"""Codes that are chosen with certainty, all of them equally often: an entropy penalty.

Chang et al., "MaskGIT", 2022 (its tokenizer); Yu et al., "Language Model Beats Diffusion", 2023, eq. 5: with the soft
choice ``p(k | z) = softmax_k(-||z - e_k||^2 / temperature)``,

    mean_z H(p(. | z)) - H(mean_z p(. | z)).

Sums over an image's P positions, like all terms: its own entropies, minus P times the entropy of the mean. That mean is
over the batch of all ranks in training, and over the whole split in an evaluation.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_vae.ranges import NotNegativeFloat, PositiveFloat, checked
from lit_vae.ranks import mean_over_ranks

_PROBABILITIES = 2**18  # held at once, forward and backward
_MOST_BITS = 12  # of which the distribution is computed exactly: 4096 codes
USAGE = "usage"
"""Name of the mean over images of `SoftChoice.usage`, of which the entropy of the mean is made."""


class SoftChoice(NamedTuple):
    """Of a batch's vectors.

    Attributes:
        entropy: ``(B,)`` nats, the entropies of each image's choices, summed over its positions.
        usage: ``(G, K)``, the probabilities of all choices of the batch, summed; of G groups of K codes each.
    """

    entropy: Tensor
    usage: Tensor

    def penalty(self) -> Tensor:
        """The penalty of a training batch before its weight, ``(B,)`` nats. A collective."""
        return self.entropy - diversity(mean_over_ranks(self.usage / len(self.entropy)))


def diversity(usage: Tensor) -> Tensor:
    """``P H(mean p)``, summed over groups: ``usage (G, K)``, a mean over images with P for each group, ``-> ()``."""
    positions = usage.detach().sum(-1, keepdim=True)
    p = usage / positions
    # at p = 0 the gradient would be infinite, so there it is that of the smallest normal number
    return -(positions * p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum()


class EntropyPenalty:
    """The penalty of a codebook.

    Args:
        weight: in the quantizer's loss.
        temperature: of the soft choice, in units of a squared distance.
    """

    @checked
    def __init__(self, weight: NotNegativeFloat = 0.1, temperature: PositiveFloat = 0.01) -> None:
        self.weight, self.temperature = weight, temperature

    def __call__(self, z: Tensor, codes: Tensor, center: Tensor | None = None) -> SoftChoice:
        """The soft choice of ``z (B, P, d)`` among ``codes (K, d)``; one group of K codes.

        The origin is ``center (d,)``, as in `lit_vae.quantizers.codebook.nearest_codes`.

        Never more than 2^18 probabilities, or one vector's, are held: chunks of vectors are computed once more in the
        backward pass.
        """
        center = codes.detach().mean(0) if center is None else center
        rows, codes = z.flatten(0, 1) - center, codes - center
        entropies: list[Tensor] = []
        usage = torch.zeros_like(codes[:, 0])
        for chunk in rows.split(max(1, _PROBABILITIES // len(codes))):
            entropy, probabilities = checkpoint(
                self._soft_choice, chunk, codes, use_reentrant=False, preserve_rng_state=False
            )
            entropies.append(entropy)
            usage = usage + probabilities
        return SoftChoice(torch.cat(entropies).view(z.shape[:2]).sum(1), usage[None])

    def _soft_choice(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy of each vector's choice ``(N,)``, and the sum of the choices' probabilities ``(K,)``."""
        distances = torch.addmm(codes.square().sum(1), z, codes.T, alpha=-2)  # but for |z|^2, the same for all codes
        log_p = (distances / -self.temperature).log_softmax(1)
        p = log_p.exp()
        return -(p * log_p).sum(1), p.sum(0)


def groups_of_bits(d: int) -> tuple[int, int]:
    """Number of groups of d bits, and bits of a group: one of all up to 12, else the fewest of equal size."""
    groups = math.ceil(d / _MOST_BITS)
    return groups, math.ceil(d / groups)


def sign_choice(z: Tensor, temperature: float) -> SoftChoice:
    """The soft choice of ``z (B, P, d)`` among the 2^d codes with all entries -1 or 1.

    It is one of d independent bits, ``p(bit = 1 | z) = sigmoid(4 z / temperature)``, so the entropy of a vector's
    choice is the sum of the bits' entropies. The *mean* of such choices does not factor: up to 12 bits it is computed
    for all 2^d codes, exactly. More bits form `groups_of_bits`, as in Yu et al. 2023 (18 bits: two groups of 9); the
    entropy of the mean is then the sum of the groups' own, its upper bound, which does not see how groups depend on one
    another.
    """
    logits = z * (4.0 / temperature)
    # H = log(1 + exp(-|l|)) + |l| sigmoid(-|l|): no logarithm of a probability that has rounded to 0 or 1
    size = logits.abs()
    each = F.softplus(-size) + size * torch.sigmoid(-size)
    groups, bits = groups_of_bits(z.shape[2])
    # a bit that is always 0 adds no entropy to a group that lacks one
    padded = F.pad(logits.flatten(0, 1), (0, groups * bits - z.shape[2]), value=-torch.inf)
    usage = torch.stack([_sum_of_products(group) for group in padded.split(bits, 1)])
    return SoftChoice(each.flatten(1).sum(1), usage)


def _sum_of_products(logits: Tensor) -> Tensor:
    """Sum over the rows of the probabilities of all codes of independent bits: ``(N, g) -> (2^g,)``.

    A product of the two halves' probabilities, so that no matrix is larger than ``(N, 2^(g/2))``.
    """
    half = logits.shape[1] // 2
    low, high = _products(logits[:, :half]), _products(logits[:, half:])
    return (high.T @ low).flatten()


def _products(logits: Tensor) -> Tensor:
    """Probabilities of all codes of independent bits, the first the lowest: ``(N, g) -> (N, 2^g)``."""
    p = logits.new_ones(len(logits), 1)
    for i in range(logits.shape[1]):
        bit = logits[:, i : i + 1]
        p = torch.cat([p * torch.sigmoid(-bit), p * torch.sigmoid(bit)], 1)
    return p
