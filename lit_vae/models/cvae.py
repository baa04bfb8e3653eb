"""The conditional variational autoencoder: Sohn et al., "Learning Structured Output Representation", 2015."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import NetworkFactory
from lit_vae.models.vae import VAE
from lit_vae.objectives import Objective
from lit_vae.posteriors import PosteriorFactory
from lit_vae.priors import Prior
from lit_vae.ranges import PositiveInt, checked


class CVAE(VAE):
    """Maximises a bound of ``log p(x|y)`` (eq. 4). Encoder, decoder and optionally the prior see the label.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        num_classes: number of labels; labels are 0 to ``num_classes - 1``.
        prior: ``p(z|y)``: standard normal, or learned for each class.
        encoder: network from image and one-hot label to the posterior's parameters.
        decoder: network from latent and one-hot label to the likelihood's parameters.
        likelihood: ``p(x|z,y)``.
        objective: the bound, such as `ELBO` (beta, free bits) or `IWAE`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        posterior: ``q(z|x,y)`` from the encoder's output; null: a diagonal Gaussian.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        num_classes: PositiveInt,
        prior: Prior,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        posterior: PosteriorFactory | None = None,
    ) -> None:
        self.num_classes = num_classes  # the networks' condition
        super().__init__(
            image_shape, prior, encoder, decoder, likelihood, objective, optimizer, lr_scheduler, posterior=posterior
        )

    def _label_problems(self, num_classes: int) -> list[str]:
        if num_classes == 0:
            return ["CVAE: the data have no labels. Take labelled data, or a VAE."]
        if num_classes <= self.num_classes:
            return []
        return [
            f"CVAE: model.num_classes (={self.num_classes}) is less than the {num_classes} labels of the data."
            f" Set model.init_args.num_classes: {num_classes}."
        ]
