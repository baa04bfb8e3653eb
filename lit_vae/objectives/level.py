"""One level of latents, and its rate."""

from typing import NamedTuple

from torch import Tensor

from lit_vae.distributions import DiagonalGaussian, LatentDistribution, Reparametrised


class Level(NamedTuple):
    """One latent of a hierarchy: ``q(z_l | x, z_<l)``, ``p(z_l | z_<l)`` and L draws from q, ``z (L, B, *latent)``.

    The parameters of q and p are ``(B, *latent)``, or ``(L, B, *latent)`` if they depend on other levels.
    """

    posterior: Reparametrised
    prior: LatentDistribution
    z: Tensor
    closed_form: bool = True
    """Whether each dimension of z can be drawn after all that its p depends on.

    If not, the closed form of two Gaussians has another mean. It holds for an autoregressive p whose q factorises.
    """

    def kl_per_dim(self) -> Tensor:
        """``KL(q || p)`` of each dimension of two Gaussians, ``(B, *latent)`` nats, given the draws that p reads."""
        assert isinstance(self.posterior, DiagonalGaussian)
        assert isinstance(self.prior, DiagonalGaussian)
        if self.closed_form:
            kl = self.posterior.kl_per_dim(self.prior)
        else:
            kl = self.posterior.log_prob_per_dim(self.z) - self.prior.log_prob_per_dim(self.z)
        return kl if kl.ndim < self.z.ndim else kl.mean(0)

    def rate(self) -> Tensor:
        """``KL(q || p)``, ``(B,)`` nats: in closed form if there is one, else ``log q(z|x) - log p(z)`` at the draws.

        The latter has the same expectation, but may be negative for an image.
        """
        if isinstance(self.posterior, DiagonalGaussian) and isinstance(self.prior, DiagonalGaussian):
            return self.kl_per_dim().flatten(1).sum(1)
        return (self.posterior.log_prob(self.z) - self.prior.log_prob(self.z)).mean(0)
