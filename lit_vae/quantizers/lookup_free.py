"""Quantizers whose codebook is a fixed grid, without search and without stored vectors."""

import math
from typing import Annotated

import torch
from torch import Tensor

from lit_vae.quantizers.base import MOST_EMBEDDINGS, Quantized, StraightThrough, VectorwiseQuantizer
from lit_vae.quantizers.codebook import squared_error
from lit_vae.quantizers.entropy import USAGE, diversity, groups_of_bits, sign_choice
from lit_vae.ranges import NotNegativeFloat, PositiveFloat, Within, checked

Levels = Annotated[int, Within(ge=3, le=MOST_EMBEDDINGS)]
Bits = Annotated[int, Within(ge=1, le=24)]

_MARGIN = 1e-3
"""Of `FSQ.bound`, which approaches the outermost levels but never reaches them."""


class FSQ(VectorwiseQuantizer):
    """Finite scalar quantization: channel i is bounded and rounded to one of ``levels[i]`` values.

    Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023, sec. 3 and appendix A.1. With L levels,
    ``f(z) = (1 - 1e-3) (L - 1)/2 tanh(z + s) - o`` is rounded, where ``o`` is 1/2 for even L and 0 for odd L, and ``s``
    makes ``f(0) = 0``. The 1e-3 is from the paper's listing, whose ``s`` uses ``tan`` instead of the inverse of tanh
    and so misses 0 a little. Codes are divided by ``floor(L / 2)`` and lie in [-1, 1]. There is no loss.

    The index is ``sum_i digit_i prod_{j < i} levels[j]``, with ``digit = round(f(z)) + floor(L / 2)``.

    Args:
        levels: number for each channel, at least 3; their product is the number of codes. In the paper: [8, 6, 5] for
            2^8, [8, 5, 5, 5] for 2^10, [7, 5, 5, 5, 5] for 2^12, [8, 8, 8, 6, 5] for 2^14, [8, 8, 8, 5, 5, 5] for 2^16.
    """

    levels: Tensor
    places: Tensor

    @checked
    def __init__(self, levels: list[Levels]) -> None:
        if not levels or math.prod(levels) > MOST_EMBEDDINGS:
            raise ValueError(
                f"FSQ: levels (={levels}) must be one for each channel, e.g. [8, 5, 5, 5], and their product at"
                " most 2^24. Set model.init_args.quantizer.init_args.levels; for two levels take LFQ."
            )
        super().__init__(math.prod(levels), len(levels))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def bound(self, z: Tensor) -> Tensor:
        """``f`` above, within ``(-floor(L / 2), floor((L - 1) / 2))``: ``(..., d) -> (..., d)``."""
        half = (self.levels - 1).to(z.dtype) * ((1.0 - _MARGIN) / 2)
        offset = (1 - self.levels % 2).to(z.dtype) / 2
        return half * torch.tanh(z + torch.atanh(offset / half)) - offset

    def quantize(self, z: Tensor) -> Quantized:
        """``z (B, P, d)``; see `VectorwiseQuantizer`. The gradient of rounding is 1."""
        bounded = self.bound(z)
        rounded = bounded.detach().round()
        indices = ((rounded.long() + self.levels // 2) * self.places).sum(-1)
        z_q = StraightThrough()(bounded, rounded) / (self.levels // 2)
        return Quantized(z_q, indices, z.new_zeros(len(z)), {})

    def vectors(self, indices: Tensor) -> Tensor:
        """``(...) -> (..., d)``, in the default dtype."""
        half_width = self.levels // 2
        digits = indices.unsqueeze(-1) // self.places % self.levels
        return (digits - half_width) / half_width


class LFQ(VectorwiseQuantizer):
    """Lookup-free quantization: the code is the sign of each channel, the index its bits.

    Yu et al., "Language Model Beats Diffusion -- Tokenizer is Key to Visual Generation" (MAGVIT-v2), 2023, sec. 3.1:
    ``q = sign(z)`` (-1 at 0), ``index = sum_i 2^i [z_i > 0]``, and the loss

        commitment_cost ||z - sg(q)||^2 + entropy_weight (mean_z H(p(. | z)) - H(mean_z p(. | z))),

    The second term is exact for at most 12 channels. With more, the entropy of the mean is summed over groups of at
    most 12 channels, see `lit_vae.quantizers.entropy.sign_choice`.

    Args:
        embedding_dim: channels d, for 2^d codes; at most 24.
        commitment_cost: weight of the commitment.
        entropy_weight: weight of the entropy penalty.
        temperature: of the soft choice: an entry z is 1 with probability ``sigmoid(4 z / temperature)``. A small value
            (0.01 is common) affects only entries of that size.
    """

    @checked
    def __init__(
        self,
        embedding_dim: Bits,
        commitment_cost: NotNegativeFloat = 0.25,
        entropy_weight: NotNegativeFloat = 0.1,
        temperature: PositiveFloat = 1.0,
    ) -> None:
        super().__init__(2**embedding_dim, embedding_dim)
        self.commitment_cost, self.entropy_weight, self.temperature = commitment_cost, entropy_weight, temperature

    def quantize(self, z: Tensor) -> Quantized:
        """``z (B, P, d)``; see `VectorwiseQuantizer`."""
        bits = z.detach() > 0
        signs = 2.0 * bits.to(z.dtype) - 1.0
        indices = (bits.long() << self._places(z)).sum(-1)
        commitment = squared_error(z, signs)
        choice = sign_choice(z, self.temperature)
        entropy = choice.penalty() if self.training else choice.entropy
        loss = self.commitment_cost * commitment + self.entropy_weight * entropy
        terms = {"commitment": commitment, "entropy": entropy}
        of_batch = {} if self.training else {USAGE: choice.usage[None]}
        return Quantized(StraightThrough()(z, signs), indices, loss, terms, of_batch)

    @property
    def batch_terms(self) -> dict[str, tuple[int, ...]]:
        """Use of each code in each group of bits."""
        groups, bits = groups_of_bits(self.embedding_dim)
        return {USAGE: (groups, 2**bits)}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """Minus the weighted entropy of the mean choice."""
        return -self.entropy_weight * diversity(means[USAGE])

    def vectors(self, indices: Tensor) -> Tensor:
        """``(...) -> (..., d)``, in the default dtype."""
        return 2.0 * (indices.unsqueeze(-1) >> self._places(indices) & 1) - 1.0

    def _places(self, like: Tensor) -> Tensor:
        return torch.arange(self.embedding_dim, device=like.device)
