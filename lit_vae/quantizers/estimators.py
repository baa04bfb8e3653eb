"""Gradient estimators for the choice of a code, which is not differentiable."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _Replace(torch.autograd.Function):
    """``value`` with the gradient of ``path``: ``path + sg(value - path)`` without the rounding error."""

    @staticmethod
    def forward(ctx: Any, path: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Estimator(ABC):
    """Replaces the gradient of ``z_q`` with respect to ``z_e``. The value of ``z_q`` does not change."""

    def __call__(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The value of ``z_q`` with a gradient to ``z_e`` only: ``z_e, z_q (..., d) -> (..., d)``."""
        z_q = z_q.detach()
        replaced: Tensor = _Replace.apply(self.path(z_e, z_q), z_q)
        return replaced

    @abstractmethod
    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The function ``(..., d)`` whose gradient is used; its value is ignored."""


class StraightThrough(Estimator):
    """``z_q = z_e + sg(z_q - z_e)``: the gradient is copied (van den Oord et al. 2017, sec. 3.2)."""

    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """``z_e`` itself."""
        return z_e


class RotationTrick(Estimator):
    """``z_q = sg(||z_q|| / ||z_e|| R) z_e``, R the rotation that turns ``z_e`` into the direction of ``z_q``.

    The gradient is rotated and scaled with the code, which keeps the angle between gradient and vector. Fifty et al.,
    "Restructuring Vector Quantization with the Rotation Trick", 2024, sec. 4: with unit vectors a of ``z_e`` and b of
    ``z_q``, and ``r = (a + b) / ||a + b||``, ``R = I - 2 r r^T + 2 b a^T``. If ``z_e`` is shorter than 1e-6, it has no
    direction and the gradient is copied.
    """

    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """``||z_q|| / ||z_e|| (z_e - 2 r (r.z_e) + 2 b (a.z_e))``."""
        length = z_e.detach().norm(dim=-1, keepdim=True)
        defined = length > 1e-6
        a = z_e.detach() / length.clamp_min(1e-6)
        b = F.normalize(z_q, dim=-1)
        r = F.normalize(a + b, dim=-1)
        rotated = z_e - 2 * r * (r * z_e).sum(-1, keepdim=True) + 2 * b * (a * z_e).sum(-1, keepdim=True)
        scale = z_q.norm(dim=-1, keepdim=True) / length.clamp_min(1e-6)
        return torch.where(defined, scale * rotated, z_e)
