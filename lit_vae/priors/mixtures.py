"""Priors that are mixtures of Gaussians: learned freely, or of posteriors of pseudo-inputs."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian, GaussianMixture, Reparametrised
from lit_vae.images import Shape
from lit_vae.priors.base import Prior
from lit_vae.ranges import NotNegativeInt, PositiveInt, SmallCount, checked

DEAD = 0.01
"""A component with a smaller share of what an equal weight would be has died."""


class GaussianMixturePrior(Prior):
    """``sum_k w_k N(mean_k, diag sigma_k^2)`` with learned weights, means and variances, for each class or for all.

    Initially each component has half the variance of N(0, I), and the means have the other half.

    Args:
        shape: of the latent.
        components: number of Gaussians, for each class.
        num_classes: number of labels with a mixture of their own; 0: one mixture for all.
    """

    @checked
    def __init__(self, shape: list[PositiveInt], components: SmallCount, num_classes: NotNegativeInt = 0) -> None:
        super().__init__(shape)
        self.num_classes = num_classes
        mixtures = [num_classes] if num_classes else []
        self.logits = nn.Parameter(torch.zeros(*mixtures, components))
        self.mean = nn.Parameter(math.sqrt(0.5) * torch.randn(*mixtures, components, *self.shape))
        self.log_var = nn.Parameter(torch.full_like(self.mean, math.log(0.5)))

    def forward(self, y: Tensor) -> GaussianMixture:
        """``p(z | y)`` of shape ``(B, *shape)``."""
        own = y if self.num_classes else ...  # of all parameters, or those of each label
        return GaussianMixture(self.logits[own], self.mean[own], self.log_var[own], batch=len(y))

    def caveats(self) -> list[str]:
        """Components that died: at an optimum, a weight is the share of the latents that a component explains."""
        share = self.logits.detach().softmax(-1) * self.logits.shape[-1]
        dead, every = int((share < DEAD).sum()), share.numel()
        if not dead:
            return []
        return [
            f"GaussianMixturePrior: {dead} of {every} components died: each explains less than a hundredth of an equal"
            " share of the latents. Set a smaller model.init_args.prior.init_args.components."
        ]


class VampPrior(Prior):
    """``1/K sum_k q(z | u_k)``: a mixture of the posteriors of K learned pseudo-inputs.

    Tomczak and Welling, "VAE with a VampPrior", 2018, eq. 9. The pseudo-inputs start as training images. They are not
    confined to [-1, 1], since no gradient could bring back one at the end of the range. Where the model has labels, a
    pseudo-input keeps the label of its image, and p(z) is the same for all labels.

    Args:
        shape: of the latent.
        num_pseudo_inputs: K. Every training step encodes them, too.
    """

    labels: Tensor
    started: Tensor

    @checked
    def __init__(self, shape: list[PositiveInt], num_pseudo_inputs: SmallCount) -> None:
        super().__init__(shape)
        self.num_pseudo_inputs = num_pseudo_inputs
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def connect(self, encode: Callable[[Tensor, Tensor], Reparametrised], image_shape: Shape, num_classes: int) -> None:
        """Make room for the pseudo-inputs."""
        self._encode = encode
        self.pseudo_inputs = nn.Parameter(torch.zeros(self.num_pseudo_inputs, *image_shape))
        self.register_buffer("labels", torch.full((self.num_pseudo_inputs,), 0 if num_classes else -1))

    @torch.no_grad()
    def start(self, data: Any) -> None:
        """Copy training images, unless the weights are those of a checkpoint."""
        if self.started:
            return
        x, y = data.example_batch(self.num_pseudo_inputs, "train")
        if len(x) < self.num_pseudo_inputs:
            raise ValueError(
                f"VampPrior: num_pseudo_inputs (={self.num_pseudo_inputs}) must be at most the number of training"
                f" images, {len(x)}: each starts as one. Set model.init_args.prior.init_args.num_pseudo_inputs."
            )
        self.pseudo_inputs.copy_(x)
        if (self.labels >= 0).all():
            self.labels.copy_(y)
        self.started.fill_(True)

    def forward(self, y: Tensor) -> GaussianMixture:
        """``p(z)`` of shape ``(B, *shape)``, for every label."""
        q = self._encode(self.pseudo_inputs, self.labels)
        assert isinstance(q, DiagonalGaussian)  # by `problems`
        return GaussianMixture(q.log_var.new_zeros(len(self.labels)), q.mean, q.log_var, batch=len(y))

    def problems(self, gaussian_posterior: bool) -> list[str]:
        """A posterior that is no Gaussian: its density elsewhere than at its own draws costs an inversion each."""
        if gaussian_posterior:
            return []
        return ["VampPrior: it needs a Gaussian posterior. Remove model.init_args.posterior, or take another prior."]
