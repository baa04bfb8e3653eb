"""Mean perceptual distance between reconstructions and originals."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_vae.features.base import PerceptualDistance


class PerceptualDistanceMetric(Metric):
    """Mean over images of a perceptual distance, in float64, over all ranks."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, distance: PerceptualDistance) -> None:
        super().__init__()
        self.distance = distance
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, x_hat: Tensor, x: Tensor) -> None:
        """Add reconstructions and originals ``(B, C, H, W)`` in [-1, 1]."""
        self.total += self.distance(x, x_hat).double().sum()
        self.count += len(x)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count
