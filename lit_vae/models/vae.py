"""The variational autoencoder: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.variational import VariationalAutoencoder
from lit_vae.objectives import Objective
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism


class VAE(VariationalAutoencoder):
    """Maximises a bound of ``log p(x)``, ``p(x) = int p(x|z) p(z) dz``, through a posterior ``q(z|x)``.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        prior: ``p(z)``; its ``shape`` is the latent's.
        encoder: network from image to posterior mean and log-variance.
        decoder: network from latent to the likelihood's parameters.
        likelihood: ``p(x|z)``.
        objective: the bound, and what is done to it (beta, free bits, IWAE).
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        realism: perceptual and adversarial terms; null: none.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        prior: Prior,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        realism: Realism | None = None,
    ) -> None:
        super().__init__(image_shape, prior, encoder, decoder, likelihood, objective, optimizer, lr_scheduler, realism)

    def encode(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        """``q(z | x)``, ``(B, *latent)``; ``y`` is ignored."""
        return self._posterior(x, None)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Minus the bound of Kingma and Welling, eq. 10, in nats per image, averaged over the batch."""
        x, y = batch
        posterior = self.encode(x, y)  # q(z|x)
        prior = self.prior(y)  # p(z)
        draws = self.step_draws(len(x))
        terms = self.objective(x, posterior, prior, lambda z: self.decode(z, y), self.global_step, draws)
        return self.training_loss(x, terms.named(), terms.decoded, **self.objective.scalars(self.global_step))
