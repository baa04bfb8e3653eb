"""Entropy penalty: favours certain choices of codes, and equal use of all codes.

Chang et al., "MaskGIT", 2022 (its tokenizer); Yu et al., "Language Model Beats Diffusion", 2023, eq. 5: with the soft
choice ``p(k | z) = softmax_k(-||z - e_k||^2 / temperature)``,

    mean_z H(p(. | z)) - H(mean_z p(. | z)).

Like all terms it is a sum over the P positions of an image: its entropies, minus P times the entropy of the mean. The
mean is over the batch of all ranks in training, and over the whole split in an evaluation.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_vae.ranges import NotNegativeFloat, PositiveFloat, checked
from lit_vae.ranks import mean_over_ranks

_PROBABILITIES = 2**18  # in memory at once, forward and backward
_MOST_BITS = 12  # with an exact distribution over all codes: 4096 of them
USAGE = "usage"
"""Name of the mean of `SoftChoice.usage` over images, for the entropy of the mean."""


class SoftChoice(NamedTuple):
    """Soft choices of codes for the vectors of a batch.

    Attributes:
        entropy: ``(B,)`` nats, the entropies of an image's choices, summed over positions.
        usage: ``(G, K)``, the probabilities of the codes, summed over the batch, for G groups of K codes each.
    """

    entropy: Tensor
    usage: Tensor

    def penalty(self) -> Tensor:
        """The unweighted penalty of a training batch, ``(B,)`` nats. All ranks must call it together."""
        return self.entropy - diversity(mean_over_ranks(self.usage / len(self.entropy)))


def diversity(usage: Tensor) -> Tensor:
    """``P H(mean p)`` summed over groups, from the mean of ``usage (G, K)`` over images: ``-> ()`` nats."""
    positions = usage.detach().sum(-1, keepdim=True)
    p = usage / positions
    # the clamp keeps the gradient finite at p = 0
    return -(positions * p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum()


class EntropyPenalty:
    """The entropy penalty of a codebook.

    Args:
        weight: weight in the quantizer's loss.
        temperature: of the soft choice, in units of squared distance.
    """

    @checked
    def __init__(self, weight: NotNegativeFloat = 0.1, temperature: PositiveFloat = 0.01) -> None:
        self.weight, self.temperature = weight, temperature

    def __call__(self, z: Tensor, codes: Tensor, center: Tensor | None = None) -> SoftChoice:
        """The soft choice of ``z (B, P, d)`` among ``codes (K, d)``, as one group.

        The origin is ``center (d,)``, as in `lit_vae.quantizers.codebook.nearest_codes`. To save memory, vectors are
        processed in chunks of at most 2^18 probabilities (or one vector), which the backward pass computes again.
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
        distances = torch.addmm(codes.square().sum(1), z, codes.T, alpha=-2)  # without |z|^2, equal for all codes
        log_p = (distances / -self.temperature).log_softmax(1)
        p = log_p.exp()
        return -(p * log_p).sum(1), p.sum(0)


def groups_of_bits(d: int) -> tuple[int, int]:
    """Number of groups and bits per group for d bits: the fewest groups of at most 12 bits."""
    groups = math.ceil(d / _MOST_BITS)
    return groups, math.ceil(d / groups)


def sign_choice(z: Tensor, temperature: float) -> SoftChoice:
    """The soft choice of ``z (B, P, d)`` among the 2^d codes with entries -1 or 1.

    The d bits are independent given z, ``p(bit = 1 | z) = sigmoid(4 z / temperature)``, so the entropy of a choice is
    the sum of the bits' entropies. The *mean* of the choices does not factor. Up to 12 bits it is computed exactly, for
    all 2^d codes. More bits form `groups_of_bits`, as in Yu et al. 2023 (18 bits: two groups of 9). The entropy of the
    mean is then the sum over groups, an upper bound that ignores dependence between groups.
    """
    logits = z * (4.0 / temperature)
    # H = log(1 + exp(-|l|)) + |l| sigmoid(-|l|) avoids the logarithm of a probability rounded to 0 or 1
    size = logits.abs()
    each = F.softplus(-size) + size * torch.sigmoid(-size)
    groups, bits = groups_of_bits(z.shape[2])
    # pad short groups with bits that are always 0: they add no entropy
    padded = F.pad(logits.flatten(0, 1), (0, groups * bits - z.shape[2]), value=-torch.inf)
    usage = torch.stack([_sum_of_products(group) for group in padded.split(bits, 1)])
    return SoftChoice(each.flatten(1).sum(1), usage)


def _sum_of_products(logits: Tensor) -> Tensor:
    """Probabilities of all codes of independent bits, summed over rows: ``(N, g) -> (2^g,)``.

    As a product of the probabilities of two halves, so that no matrix exceeds ``(N, 2^(g/2))``.
    """
    half = logits.shape[1] // 2
    low, high = _products(logits[:, :half]), _products(logits[:, half:])
    return (high.T @ low).flatten()


def _products(logits: Tensor) -> Tensor:
    """Probabilities of all codes of independent bits, lowest bit first: ``(N, g) -> (N, 2^g)``."""
    p = logits.new_ones(len(logits), 1)
    for i in range(logits.shape[1]):
        bit = logits[:, i : i + 1]
        p = torch.cat([p * torch.sigmoid(-bit), p * torch.sigmoid(bit)], 1)
    return p
