"""Adversarial losses, and the adaptive weight that balances them with the reconstruction loss.

Logits have one value per patch, ``(B, 1, h, w)``. Each loss is a mean over the patches of an image, ``(B,)``; nothing
here averages over the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.ranks import average_over_ranks

EPS = 1e-4
"""Added to the denominator of the adaptive weight (Esser et al. 2021, eq. 7; the value is that of their code)."""


class AdversarialLoss(ABC):
    """A loss for the discriminator and one for the generator, both minimised."""

    threshold: float = 0.0
    """A logit above this value classifies the patch as real."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss from the logits of images and of reconstructions: ``(B, 1, h, w)`` each ``-> (B,)``."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Loss from the logits of reconstructions: ``(B, 1, h, w) -> (B,)``."""


class Hinge(AdversarialLoss):
    """``1/2 (relu(1 - D(x)) + relu(1 + D(x_hat)))`` and ``-D(x_hat)`` (Lim and Ye 2017; the 1/2 is from VQGAN)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """A patch that is classified correctly with a margin of 1 gives no gradient."""
        return 0.5 * (_mean(F.relu(1.0 - real)) + _mean(F.relu(1.0 + fake)))

    def generator(self, fake: Tensor) -> Tensor:
        """Linear: the gradient is the same at every logit."""
        return -_mean(fake)


class NonSaturating(AdversarialLoss):
    """Cross-entropies ``1/2 (softplus(-D(x)) + softplus(D(x_hat)))`` and ``softplus(-D(x_hat))``.

    Goodfellow et al., "Generative Adversarial Nets", 2014, sec. 3; the 1/2 as in `Hinge`.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """At its optimum ``D = log p(x) - log p(x_hat)``."""
        return 0.5 * (_mean(F.softplus(-real)) + _mean(F.softplus(fake)))

    def generator(self, fake: Tensor) -> Tensor:
        """Unlike ``log(1 - sigmoid(D))``, it keeps a gradient where the discriminator is certain."""
        return _mean(F.softplus(-fake))


class LeastSquares(AdversarialLoss):
    """``1/2 ((D(x) - 1)^2 + D(x_hat)^2)`` and ``1/2 (D(x_hat) - 1)^2`` (Mao et al. 2017, eq. 9)."""

    threshold = 0.5

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Regression of the logits to 1 (real) and 0 (fake)."""
        return 0.5 * (_mean((real - 1.0).square()) + _mean(fake.square()))

    def generator(self, fake: Tensor) -> Tensor:
        """Regression to the target of a real image, 1."""
        return 0.5 * _mean((fake - 1.0).square())


def gradient_norms(terms: list[Tensor], parameter: Tensor) -> list[Tensor]:
    """Norm of the gradient of each term's mean with respect to ``parameter``, ``()`` each.

    The mean is over the batches of all ranks. Computed in float32, before loss scaling. The graph is kept.
    """
    gradients = [torch.autograd.grad(term.mean(), parameter, retain_graph=True)[0] for term in terms]
    return [gradient.norm() for gradient in average_over_ranks(in_float32(torch.stack(gradients)))]


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, most: float) -> Tensor:
    """``lambda = |grad_L nll| / (|grad_L adversarial| + 1e-4)``, at most ``most``: norms ``() -> ()``.

    Esser et al., "Taming Transformers", 2021, eq. 7: at the decoder's last layer L both gradients get the same norm.
    """
    return (reconstruction / (adversarial + EPS)).clamp(max=most)


def in_float32(value: Tensor) -> Tensor:
    """At least float32: half precision is enough for logits, but not for sums of them."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _mean(patches: Tensor) -> Tensor:
    return in_float32(patches).flatten(1).mean(1)


class _Graft(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0].reshape(-1, *[1] * (gradient.ndim - 1)) * gradient, None, None


def graft(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``value(x) (B,)`` of images ``x (B, C, H, W)``, with a gradient to x only.

    The backward pass through the network behind ``value`` runs here, once, and frees its activations. The gradient
    norms of the adaptive weight and the training step's backward pass reuse its result. The network's weights get no
    gradient. Each value is assumed to depend on its own image alone. If it does not (a discriminator with batch
    statistics), the gradient of the batch mean is still right.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return value(x)
    anchor = x.detach().requires_grad_()
    values = value(anchor)
    # the gradient of a mean over pixels is of order 1/pixels: scale it so that it does not underflow in float16
    pixels = anchor[0, 0].numel()
    (gradient,) = torch.autograd.grad(values.sum() * pixels, anchor)
    return _Graft.apply(x, values.detach(), gradient / pixels)
