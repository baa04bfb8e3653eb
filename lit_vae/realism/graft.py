"""A value whose gradient is computed at once, and joins a larger graph as a constant."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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
