"""A second VAE, fitted to the latents of a trained run: Dai and Wipf, "Diagnosing and Enhancing VAE Models", 2019."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models import CVAE, VAE
from lit_vae.networks import MLP
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal
from lit_vae.tools.priors.network import FittedNetwork

HIDDEN = (256, 256)


class SecondStage(FittedNetwork):
    """``p(z | y) = int N(z; mean(v, y), gamma I) N(v; 0, I) dv`` of standardised latents: a VAE of images of d values.

    v has as many dimensions as z, and gamma is learned. `log_prob` is one-sample estimates of its ELBO, whose
    expectation is a lower bound of ``log p(z | y)``.
    """

    network: VAE
    kind = "vae"
    is_bound = True

    @classmethod
    def new(cls, d: int, num_classes: int, hidden: tuple[int, ...] = HIDDEN) -> VAE:
        """A VAE, or for latents with classes a CVAE."""
        mlp = partial(MLP, hidden=list(hidden))
        parts: dict[str, Any] = {"image_shape": [d, 1, 1], "prior": StandardNormal([d]), "encoder": mlp, "decoder": mlp}
        parts |= {"likelihood": LearnedGaussian(0.1), "objective": ELBO(), "optimizer": torch.optim.Adam}
        return CVAE(num_classes=num_classes, **parts) if num_classes else VAE(**parts)

    @staticmethod
    def loss(network: VAE, u: Tensor, y: Tensor) -> Tensor:
        """Minus the ELBO, with the KL in closed form."""
        return network.step(Batch(_image(u), y), None, None).terms["loss"]

    def _log_prob(self, u: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """By the log-ratio at the draws, which is exact where q is the posterior; a KL in closed form is not."""
        return -self.network.importance_weighted_nll(_image(u), y, 1, 1, draws)

    def _sample(self, y: Tensor, temperature: float, draws: Draws) -> Tensor:
        decoded = self.network.decode(self.network.prior(y).sample(draws, temperature), y)
        assert isinstance(decoded, DiagonalGaussian)  # of `LearnedGaussian`
        return decoded.sample(draws, temperature).flatten(1)


def _image(u: Tensor) -> Tensor:
    return u[..., None, None]
