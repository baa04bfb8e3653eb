"""Posteriors ``q(z | x)``: from the encoder's output to a distribution."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian, Reparametrised
from lit_vae.images import Shape


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
