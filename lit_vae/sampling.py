"""Draws codes from logits and given uniform numbers, so that equal logits give equal draws."""

from dataclasses import dataclass
from typing import get_type_hints

import torch
from torch import Tensor

from lit_vae.ranges import NotNegativeFloat, PositiveInt, PositiveShare, check_arguments

_ROUNDING = 1e-6  # tolerance for the rounding of sums: nine of ten equal codes reach top_p = 0.9


@dataclass(frozen=True)
class CodeSampling:
    """How codes are drawn from a prior. The defaults draw exactly; other values trade diversity for likelihood.

    Args:
        temperature: divides the logits; 0 takes the most probable code.
        top_k: keep the k most probable codes; of equal codes those with the lowest index; None: all.
        top_p: keep the most probable codes that together have this probability (Holtzman et al., "The Curious Case of
            Neural Text Degeneration", 2020); 1: all.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: NotNegativeFloat = 1.0
    top_k: PositiveInt | None = None
    top_p: PositiveShare = 1.0

    def __post_init__(self) -> None:
        check_arguments(self, vars(self), get_type_hints(CodeSampling, include_extras=True))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities ``(..., K)`` of the codes for ``logits (..., K)``, in at least float32."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature == 0.0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            order = logits.sort(dim=-1, descending=True, stable=True).indices  # topk picks any of equal codes
            logits = logits.scatter(-1, order[..., self.top_k :], -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p < 1.0:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            before = ordered.cumsum(-1) - ordered
            needed = (before == 0.0) | (before < self.top_p - _ROUNDING)  # the most probable code is always kept
            kept = torch.zeros_like(probabilities).scatter_(-1, order, torch.where(needed, ordered, 0.0))
            probabilities = kept / kept.sum(-1, keepdim=True)
        return probabilities

    def draw(self, logits: Tensor, u: Tensor) -> Tensor:
        """Codes ``(B,)`` int64 for logits ``(B, K)`` and uniforms ``u (B,)`` in [0, 1), by the inverse of the CDF."""
        cumulative = self.probabilities(logits).cumsum(-1)
        total = cumulative[..., -1]  # rounded 1; a target below it never selects a code of probability 0
        target = torch.minimum(u.to(total) * total, torch.nextafter(total, torch.zeros_like(total)))
        return torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
