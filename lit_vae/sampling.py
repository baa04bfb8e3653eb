"""Drawing codes from logits, as a function of given uniforms: two ways to the same logits draw the same."""

from dataclasses import dataclass
from typing import get_type_hints

import torch
from torch import Tensor

from lit_vae.ranges import NotNegativeFloat, PositiveInt, PositiveShare, check_numbers

_ROUNDING = 1e-6  # a sum of probabilities that misses top_p by less has it: nine codes of ten have 0.9


@dataclass(frozen=True)
class CodeSampling:
    """How codes are drawn from a prior: changed logits trade diversity for likelihood, the defaults are exact draws.

    Args:
        temperature: divides the logits; 0 takes the most probable code.
        top_k: keep the k most probable codes, and no more: of equal ones those with the lowest index; None: all.
        top_p: keep the most probable codes that together have this probability (Holtzman et al., "The Curious Case of
            Neural Text Degeneration", 2020); 1: all.

    Raises:
        ValueError: for values out of range.
    """

    temperature: NotNegativeFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: PositiveShare = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, vars(self), get_type_hints(CodeSampling, include_extras=True))

    def probabilities(self, logits: Tensor) -> Tensor:
        """``(..., K)`` logits to the probabilities that codes are drawn with, ``(..., K)`` in at least float32."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature == 0.0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            order = logits.sort(dim=-1, descending=True, stable=True).indices  # topk takes any of equal ones
            logits = logits.scatter(-1, order[..., self.top_k :], -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p < 1.0:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered  # the most probable code has nothing before it, and is always kept
            needed = (before == 0.0) | (before < self.top_p - _ROUNDING)
            kept = torch.zeros_like(probabilities).scatter_(-1, order, torch.where(needed, ordered, 0.0))
            probabilities = kept / kept.sum(-1, keepdim=True)
        return probabilities

    def draw(self, logits: Tensor, u: Tensor) -> Tensor:
        """Inverse distribution function: logits ``(B, K)`` and uniforms ``u (B,)`` in [0, 1) ``-> (B,)`` int64."""
        cumulative = self.probabilities(logits).cumsum(-1)
        total = cumulative[..., -1]  # 0.999.. or 1.000..1; below it, and to the right: never a code of probability 0
        target = torch.minimum(u.to(total) * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
