"""A ladder VAE of two vectors: Sonderby et al., "Ladder Variational Autoencoders", 2016."""

from lightning.pytorch.cli import OptimizerCallable
from torch import Generator, Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution, standard_normal
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.vae import VariationalAutoencoder
from lit_vae.noise import Draws
from lit_vae.objectives import Level, Objective
from lit_vae.priors import StandardNormal

Pair = tuple[DiagonalGaussian, DiagonalGaussian]


class LadderVAE(VariationalAutoencoder):
    """``p(x|z2) p(z2|z1) p(z1)``; the posterior is ``q(z1|x) q(z2|z1,x)``. ``latent_dims``: of z1 and z2."""

    def __init__(
        self,
        image_shape: list[int],
        latent_dims: list[int],
        encoder: NetworkFactory,
        top_encoder: NetworkFactory,
        top_decoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
    ) -> None:
        top, bottom = latent_dims
        super().__init__(image_shape, [(top,), (bottom,)], likelihood, objective, optimizer)
        self.prior = StandardNormal([top])
        self.encoder = encoder(self.image_shape, (2 * bottom,), 0)
        self.top_encoder = top_encoder((2 * bottom,), (2 * top,), 0)
        self.top_decoder = top_decoder((top,), (2 * bottom,), 0)
        self.decoder = decoder((bottom,), (likelihood.num_parameters(image_shape[0]), *image_shape[1:]), 0)

    def encode(self, x: Tensor, y: Tensor) -> Pair:
        """Evidence of the image about z2, and ``q(z1|x)``."""
        return _gaussian(h := self.encoder(x, None)), _gaussian(self.top_encoder(h, None))

    def path(
        self, encoded: Pair, y: Tensor, num_samples: int, draws: Draws | None = None, first: int = 0
    ) -> tuple[list[Level], Distribution]:
        """From the top: ``z1 ~ q(z1|x)``, then ``z2 ~ q(z2|z1,x)``, each with its own noise."""
        evidence, q1 = encoded
        z1 = q1.rsample(num_samples, draws and draws.level(0), first)
        q2 = _product(p2 := self.below(z1), evidence)
        z2 = q2.rsample(num_samples, draws and draws.level(1), first)
        return [Level(q1, self.prior(y), z1), Level(q2, p2, z2)], self.decode(z2, y)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """z2 ``(B, d)`` at the means of both posteriors."""
        evidence, q1 = self.encode(x, y)
        return _product(self.below(q1.mean[None]), evidence).mean[0]

    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``z1 ~ p(z1)``, then ``z2 ~ p(z2|z1)``: ``-> (n, d)``."""
        like = next(self.parameters())
        p2 = self.below(temperature * standard_normal((1, n, *self.prior.shape), like, generator))
        return (p2.mean + temperature * p2.std * standard_normal(tuple(p2.mean.shape), like, generator))[0]

    def below(self, z1: Tensor) -> DiagonalGaussian:
        """``p(z2|z1)`` of L draws for B images: ``(L, B, d1) -> (L, B, d2)``."""
        return _gaussian(self.top_decoder(z1.flatten(0, 1), None).unflatten(0, z1.shape[:2]))


def _gaussian(parameters: Tensor) -> DiagonalGaussian:
    return DiagonalGaussian(*parameters.chunk(2, -1), event_ndim=1)


def _product(p: DiagonalGaussian, q: DiagonalGaussian) -> DiagonalGaussian:
    """Normalised product of two densities (eq. 17 to 19): precisions add up, and weight the means."""
    a, b = (-p.log_var).exp(), (-q.log_var).exp()
    return DiagonalGaussian((a * p.mean + b * q.mean) / (a + b), -(a + b).log(), event_ndim=1)
