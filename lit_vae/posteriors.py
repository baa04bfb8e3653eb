"""Posteriors ``q(z | x)``: from the encoder's output to a distribution."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian, FlowedGaussian, Reparametrised
from lit_vae.distributions.continuous import at_least_float32
from lit_vae.flows import FlowFactory
from lit_vae.images import Shape
from lit_vae.ranges import NotNegativeInt, PositiveFloat, checked


class Posterior(nn.Module, ABC):
    """A family of distributions over latents of ``shape``, which the model takes from its prior."""

    is_gaussian: bool = False
    """Whether it is a `DiagonalGaussian`."""

    in_shape: Shape
    """Shape of the parameters, the encoder's output."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> Reparametrised:
        """``q(z | x)`` of ``parameters (B, *in_shape)``, as ``(B, *shape)``."""


PosteriorFactory = Callable[[Shape], Posterior]
"""A class of posteriors with all arguments but the latent's shape filled in."""


class GaussianPosterior(Posterior):
    """``N(mean, diag exp(log_var))``; the encoder gives mean and log-variance."""

    is_gaussian = True

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.in_shape = (2 * shape[0], *shape[1:])

    def forward(self, parameters: Tensor) -> DiagonalGaussian:
        """See the class."""
        mean, log_var = parameters.chunk(2, 1)
        return DiagonalGaussian(mean, log_var)


class FixedVariance(Posterior):
    """``N(mean, std^2 I)``; the encoder gives the mean alone.

    Training cannot remove the noise, so the decoder learns to be smooth. A small KL bounds the scale of the means,
    which could otherwise grow until the noise has no effect. Ghosh et al., "From Variational to Deterministic
    Autoencoders", 2020, sec. 3: such a VAE is an autoencoder with noise in its latent.

    Args:
        shape: set by the model.
        std: standard deviation of the noise.
    """

    is_gaussian = True

    @checked
    def __init__(self, shape: Shape, std: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.in_shape, self.log_var = shape, 2.0 * math.log(std)

    def forward(self, parameters: Tensor) -> DiagonalGaussian:
        """See the class."""
        return DiagonalGaussian(parameters, torch.full_like(parameters, self.log_var))


class FlowPosterior(Posterior):
    """``z = f(e)`` with ``e ~ N(mean, diag exp(log_var))`` and a learned flow f: Rezende and Mohamed 2015.

    The encoder gives mean, log-variance and a condition of f. Initially f is the identity. Draws and their density are
    a forward pass of the flow.

    Args:
        shape: set by the model.
        flow: a class of `lit_vae.flows`.
        context: channels of the encoder's output that f depends on (h in Kingma et al. 2016); 0: f is the same for all.
    """

    @checked
    def __init__(self, shape: Shape, flow: FlowFactory, context: NotNegativeInt = 32) -> None:
        super().__init__()
        self.channels = [shape[0], shape[0], context]
        self.in_shape = (sum(self.channels), *shape[1:])
        self.flow = flow(shape, math.prod((context, *shape[1:])))

    def forward(self, parameters: Tensor) -> FlowedGaussian:
        """See the class."""
        mean, log_var, context = parameters.split(self.channels, 1)
        cond = at_least_float32(context.flatten(1))
        return FlowedGaussian(DiagonalGaussian(mean, log_var), self.flow(cond if cond.shape[1] else None))
