"""Adversarial losses and what balances them: pure functions of logits, and components made of them.

Logits are maps of patches, ``(B, 1, h, w)``; every loss is a mean over an image's patches, ``(B,)``. Nothing here
averages over the batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.ranks import average_over_ranks

EPS = 1e-4
"""Of the adaptive weight's denominator (Esser et al. 2021, eq. 7, as published code has it)."""


class AdversarialLoss(ABC):
    """A loss of the discriminator and one of the generator, both minimised."""

    threshold: float = 0.0
    """Logits above it are taken for real images."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of images and of reconstructions ``(B, 1, h, w)`` each ``-> (B,)``."""

    @abstractmethod
    def generator(self, fake: Tensor) -> Tensor:
        """Logits of reconstructions ``(B, 1, h, w) -> (B,)``."""


class Hinge(AdversarialLoss):
    """``1/2 (relu(1 - D(x)) + relu(1 + D(x_hat)))`` and ``-D(x_hat)`` (Lim and Ye 2017; the half is VQGAN's)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """No gradient of patches that are told apart by a margin of one."""
        return 0.5 * (_mean(F.relu(1.0 - real)) + _mean(F.relu(1.0 + fake)))

    def generator(self, fake: Tensor) -> Tensor:
        """Linear: the gradient to a logit is the same everywhere."""
        return -_mean(fake)


class NonSaturating(AdversarialLoss):
    """Cross-entropies ``1/2 (softplus(-D(x)) + softplus(D(x_hat)))`` and ``softplus(-D(x_hat))``.

    Goodfellow et al., "Generative Adversarial Nets", 2014, sec. 3; halved as `Hinge` is.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """At its optimum ``D = log p(x) - log p(x_hat)``."""
        return 0.5 * (_mean(F.softplus(-real)) + _mean(F.softplus(fake)))

    def generator(self, fake: Tensor) -> Tensor:
        """Has a gradient where the discriminator is sure, unlike ``log(1 - sigmoid(D))``."""
        return _mean(F.softplus(-fake))


class LeastSquares(AdversarialLoss):
    """``1/2 ((D(x) - 1)^2 + D(x_hat)^2)`` and ``1/2 (D(x_hat) - 1)^2`` (Mao et al. 2017, eq. 9)."""

    threshold = 0.5

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """A regression to one and zero."""
        return 0.5 * (_mean((real - 1.0).square()) + _mean(fake.square()))

    def generator(self, fake: Tensor) -> Tensor:
        """Towards the logit of a real image."""
        return 0.5 * _mean((fake - 1.0).square())


def gradient_norms(terms: list[Tensor], parameter: Tensor) -> list[Tensor]:
    """Norm of the gradient of each term's batch mean to ``parameter``; the batch is that of all ranks.

    In float32, before any loss scaling. The graph is kept.
    """
    gradients = [torch.autograd.grad(term.mean(), parameter, retain_graph=True)[0] for term in terms]
    return [gradient.norm() for gradient in average_over_ranks(in_float32(torch.stack(gradients)))]


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, most: float) -> Tensor:
    """``lambda = |grad_L nll| / (|grad_L adversarial| + 1e-4)``, at most ``most``: norms ``() -> ()``.

    Esser et al., "Taming Transformers", 2021, eq. 7: at the decoder's last layer L the two then pull equally hard.
    """
    return (reconstruction / (adversarial + EPS)).clamp(max=most)


def in_float32(value: Tensor) -> Tensor:
    """In float32 at least: half precision does for logits, and not for their sums."""
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
    """``value(x) (B,)`` of images ``x (B, C, H, W)``, with its gradient to x and to nothing else.

    One backward pass through the network behind ``value`` here, and none later: neither the gradient norms that the
    adaptive weight needs nor the training step's own backward pass goes through it again, and its activations are gone
    before. The network's weights get no gradient. An image's value is taken to depend on that image alone; where it
    does not (a discriminator with batch statistics), the batch mean's gradient is right all the same.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return value(x)
    anchor = x.detach().requires_grad_()
    values = value(anchor)
    # a mean over pixels has gradients of 1/pixels: times pixels they are of order one, and do not vanish in float16
    pixels = anchor[0, 0].numel()
    (gradient,) = torch.autograd.grad(values.sum() * pixels, anchor)
    return _Graft.apply(x, values.detach(), gradient / pixels)
