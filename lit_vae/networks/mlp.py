"""Fully connected networks for encoders and decoders."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.ranges import PositiveInt, checked


class MLP(nn.Module):
    """Fully connected layers between two shapes; a condition is concatenated to the flattened input.

    ``h (B, *in_shape), cond (B, cond_dim) or None -> (B, *out_shape)``. ``hidden: []`` is an affine map: a linear VAE.

    Args:
        in_shape: set by the model.
        out_shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        hidden: widths of the hidden layers, from input to output.
        activation: class of the non-linearity.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        cond_dim: int = 0,
        hidden: list[PositiveInt] = [200, 200],  # noqa: B006  (never mutated; a YAML list has no tuples)
        activation: type[nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        self.out_shape = out_shape
        widths = [math.prod(in_shape) + cond_dim, *hidden]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), activation()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(out_shape)))

    def forward(self, h: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        h = h.flatten(1)
        if cond is not None:
            h = torch.cat([h, cond], 1)
        return self.layers(h).unflatten(1, self.out_shape)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the last layer."""
        return self.layers[-1].weight  # type: ignore[return-value]
