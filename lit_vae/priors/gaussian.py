"""Gaussian priors."""

import torch
from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian
from lit_vae.priors.base import Prior
from lit_vae.ranges import PositiveInt, checked


class StandardNormal(Prior):
    """``N(0, I)`` for every label."""

    is_gaussian = True
    zero: Tensor

    @checked
    def __init__(self, shape: list[PositiveInt]) -> None:
        super().__init__(shape)
        self.register_buffer("zero", torch.zeros(()), persistent=False)

    def forward(self, y: Tensor) -> DiagonalGaussian:
        """``N(0, I)`` of shape ``(B, *shape)``; the zeros are an expanded view that takes no memory."""
        zeros = self.zero.expand(len(y), *self.shape)
        return DiagonalGaussian(zeros, zeros)


class ClassConditionalNormal(Prior):
    """``N(mu_y, diag sigma_y^2)`` with a learned mean and log-variance for each class, initially N(0, I).

    Labels are 0 to ``num_classes - 1``; -1 ("no label") is not allowed.
    """

    is_gaussian = True

    @checked
    def __init__(self, shape: list[PositiveInt], num_classes: PositiveInt) -> None:
        super().__init__(shape)
        self.num_classes = num_classes
        self.mean = nn.Parameter(torch.zeros(num_classes, *self.shape))
        self.log_var = nn.Parameter(torch.zeros(num_classes, *self.shape))

    def forward(self, y: Tensor) -> DiagonalGaussian:
        """``p(z | y)`` of shape ``(B, *shape)``."""
        return DiagonalGaussian(self.mean[y], self.log_var[y])
