"""A normalizing flow fitted to the latents of a trained run: a second stage with an exact density."""

from functools import partial

from torch import Tensor

from lit_vae.flows import MOST_VALUES, AffineFlow
from lit_vae.noise import Draws
from lit_vae.priors import FlowPrior
from lit_vae.tools.priors.network import FittedNetwork


class FittedFlow(FittedNetwork):
    """`FittedNetwork` with a `FlowPrior`."""

    network: FlowPrior
    kind = "flow"

    @classmethod
    def new(cls, d: int, num_classes: int) -> FlowPrior:
        """A flow that is the identity.

        Raises:
            ValueError: the latent is too large.
        """
        if d > MOST_VALUES:
            raise ValueError(
                f"lit-vae fit-prior: --prior flow: the latent has {d} dimensions, flattened, and a flow takes at"
                f" most {MOST_VALUES}. Give --prior gmm --covariance diag."
            )
        return FlowPrior([d], partial(AffineFlow, transforms=6, hidden=[128, 128], coupling=True), num_classes)

    @staticmethod
    def loss(network: FlowPrior, u: Tensor, y: Tensor) -> Tensor:
        """``-log p(u | y)``."""
        return -network(y).log_prob(u)

    def _log_prob(self, u: Tensor, y: Tensor, draws: Draws) -> Tensor:
        return self.network(y).log_prob(u)

    def _sample(self, y: Tensor, temperature: float, draws: Draws) -> Tensor:
        return self.network(y).sample(draws, temperature)
