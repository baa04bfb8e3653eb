"""Images of a Gaussian under an invertible map."""

from typing import Protocol

import torch
from torch import Generator, Tensor

from lit_vae.distributions.continuous import DiagonalGaussian, NoiseSource, Reparametrised, standard_normal
from lit_vae.noise import Draws

PAIRS_OF_MEAN = 16


class InvertibleMap(Protocol):
    """A map of events as zuko has them: one of torch's transforms, with one more method."""

    @property
    def inv(self) -> "InvertibleMap":
        """The inverse."""

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``f(x) (..., d)`` and ``log|det df/dx| (...)`` of ``x (..., d)``, in one pass."""


class FlowedGaussian(Reparametrised):
    """``z = f(e)`` with ``e ~ base``: ``log p(z) = log base(e) - log|det df/de|``.

    Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015, eq. 5.

    Args:
        base: ``(B, *event)``.
        transform: f, a map of flattened events ``(..., d)``.

    >>> import zuko
    >>> double = torch.distributions.AffineTransform(0.0, 2.0, event_dim=1)
    >>> p = FlowedGaussian(DiagonalGaussian(torch.ones(1, 3), torch.zeros(1, 3)), double)
    >>> p.log_prob(2.0 * torch.ones(1, 3))  # -3/2 log 2 pi - 3 log 2
    tensor([-4.8363])
    """

    def __init__(self, base: DiagonalGaussian, transform: InvertibleMap) -> None:
        self.base = base
        self.transform = transform
        self.event_ndim = base.event_ndim
        self._drawn: tuple[Tensor, Tensor] | None = None  # draws and their log-density

    @property
    def mean(self) -> Tensor:
        """``(B, *event)``. No closed form: the mean of a few draws with fixed noise, in pairs of opposite sign.

        It is exact where f is affine. In general its expectation over the noise is the mean.
        """
        generator = Generator().manual_seed(0)
        event = tuple(self.base.mean.shape[-self.event_ndim :])
        eps = standard_normal((PAIRS_OF_MEAN, 1, *event), self.base.mean, generator)
        return self._map(self.base.mean + self.base.std * torch.cat([eps, -eps]))[0].mean(0)

    def log_prob(self, x: Tensor) -> Tensor:
        """``(..., B, *event) -> (..., B)`` nats. The last `rsample` costs nothing, other latents an inversion of f."""
        if self._drawn is not None and x is self._drawn[0]:
            return self._drawn[1]
        e, log_det = self._map(x, inverse=True)
        return self.base.log_prob(e) + log_det

    def rsample(self, num_samples: int, draws: Draws | None = None, first: int = 0) -> Tensor:
        """See `Reparametrised`; remembers the draws' log-density, which the map gives anyway."""
        e = self.base.rsample(num_samples, draws, first)
        z, log_det = self._map(e)
        self._drawn = z, self.base.log_prob(e) - log_det
        return z

    @torch.no_grad()
    def sample(self, source: NoiseSource = None, temperature: float = 1.0) -> Tensor:
        """``f`` of a draw from the base, whose noise is scaled by ``temperature``: ``(B, *event)``."""
        return self._map(self.base.sample(source, temperature))[0]

    def _map(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """``f(x)`` and its log-determinant, or those of the inverse; never in half precision: sums of nats."""
        transform = self.transform.inv if inverse else self.transform
        with torch.autocast(x.device.type, enabled=False):
            y, log_det = transform.call_and_ladj(x.flatten(-self.event_ndim))
        return y.view_as(x), log_det
