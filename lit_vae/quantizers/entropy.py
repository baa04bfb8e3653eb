"""Codes that are chosen with certainty, all of them equally often: an entropy penalty.

Chang et al., "MaskGIT", 2022 (its tokenizer); Yu et al., "Language Model Beats Diffusion", 2023, eq. 5: with the soft
choice ``p(k | z) = softmax_k(-||z - e_k||^2 / temperature)``,

    mean_z H(p(. | z)) - H(mean_z p(. | z)).

Sums over an image's P positions, like all terms: its own entropies, minus P times the entropy of the batch's mean.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lit_vae.quantizers.ranks import mean_over_ranks

_PROBABILITIES = 2**18  # held at once, forward and backward


class EntropyPenalty:
    """The penalty of a codebook.

    Args:
        weight: in the quantizer's loss.
        temperature: of the soft choice, in units of a squared distance.
    """

    def __init__(self, weight: float = 0.1, temperature: float = 0.01) -> None:
        if weight < 0.0 or not temperature > 0.0:
            raise ValueError(
                f"EntropyPenalty: weight (={weight}) must be at least 0 and temperature (={temperature}) positive."
                " Set model.init_args.quantizer.init_args.entropy.init_args."
            )
        self.weight, self.temperature = weight, temperature

    def __call__(self, z: Tensor, codes: Tensor, across_ranks: bool) -> Tensor:
        """The penalty in nats, before its weight: ``z (B, P, d), codes (K, d) -> (B,)``.

        Never more than 2^18 probabilities, or one vector's, are held: chunks of vectors are computed once more in the
        backward pass. ``across_ranks``: the mean is over the batches of all ranks, which have to take part.
        """
        rows = z.flatten(0, 1)
        entropies: list[Tensor] = []
        total = torch.zeros_like(codes[:, 0])
        for chunk in rows.split(max(1, _PROBABILITIES // len(codes))):
            entropy, probabilities = checkpoint(
                self._soft_choice, chunk, codes, use_reentrant=False, preserve_rng_state=False
            )
            entropies.append(entropy)
            total = total + probabilities
        mean = total / len(rows)
        mean = mean_over_ranks(mean) if across_ranks else mean
        return torch.cat(entropies).view(z.shape[:2]).sum(1) - z.shape[1] * _entropy(mean)

    def _soft_choice(self, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy of each vector's choice ``(N,)``, and the sum of the choices' probabilities ``(K,)``."""
        distances = torch.addmm(codes.square().sum(1), z, codes.T, alpha=-2)  # but for |z|^2, the same for all codes
        log_p = (distances / -self.temperature).log_softmax(1)
        p = log_p.exp()
        return -(p * log_p).sum(1), p.sum(0)


def _entropy(p: Tensor) -> Tensor:
    """``-sum p log p``; at p = 0 its gradient would be infinite, so there it is that of the smallest normal number."""
    return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum()


def sign_entropy(z: Tensor, temperature: float, across_ranks: bool) -> Tensor:
    """The penalty, in nats, of the 2^d codes with all entries -1 or 1: ``z (B, P, d) -> (B,)``.

    Their soft choice is one of d independent bits, ``p(bit = 1 | z) = sigmoid(4 z / temperature)``, so the entropy of a
    vector's choice is the sum of the bits' entropies, exactly. The entropy of the mean is replaced by the sum of the
    bits' entropies in the mean, its upper bound: it asks of each bit, not of each code, to be used equally often.
    """
    logits = z * (4.0 / temperature)
    p = logits.sigmoid()
    # H = log(1 + exp(-|l|)) + |l| sigmoid(-|l|): no logarithm of a probability that has rounded to 0 or 1
    size = logits.abs()
    each = F.softplus(-size) + size * torch.sigmoid(-size)
    mean = p.mean((0, 1))
    mean = mean_over_ranks(mean) if across_ranks else mean
    both = _entropy(torch.stack([mean, 1.0 - mean]))
    return each.flatten(1).sum(1) - z.shape[1] * both
