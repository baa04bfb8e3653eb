"""Autoregressive models of pixels: van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import ImageModel
from lit_vae.networks.autoregressive import AutoregressiveFactory, generate
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import NotNegativeInt, PositiveInt, checked


class PixelCNN(ImageModel):
    """``p(x) = prod_i p(x_i | x_<i)``, pixel by pixel in raster order: an exact likelihood without latents.

    The likelihood is the distribution of one pixel (all its channels) given the pixels before it: `Bernoulli` for
    binary images, `Categorical` or `DiscretizedLogisticMixture` for eight-bit images.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        network: an autoregressive network, such as `lit_vae.networks.GatedPixelCNN`.
        likelihood: ``p(x_i | x_<i)``.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        num_classes: number of labels that it is conditioned on; 0: none.
    """

    term_names = ("loss", "nll")

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        network: AutoregressiveFactory,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_classes: NotNegativeInt = 0,
    ) -> None:
        super().__init__(image_shape, likelihood, optimizer, lr_scheduler)
        self.num_classes = num_classes
        channels, height, width = self.image_shape
        self.network = network(channels, likelihood.num_parameters(channels), (height, width), num_classes, 0)

    def nll(self, x: Tensor, y: Tensor) -> Tensor:
        """``-log p(x | y) = -sum_i log p(x_i | x_<i, y)``, ``(B,)`` nats."""
        return -self.likelihood(self.network(x, self.condition(y))).log_prob(x)

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """The exact negative log-likelihood in nats per image."""
        nll = self.nll(*batch)
        return Step({"loss": nll, "nll": nll})

    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` exact draws, clamped to [-1, 1], ``(n, C, H, W)``.

        Raises:
            ValueError: for a temperature other than 1.
        """
        if temperature != 1.0:
            raise ValueError(f"{type(self).__name__}: temperature (={temperature}) must be 1: its draws are exact.")
        cond = self.condition(self.labels_for(n, y))

        def draw(parameters: Tensor) -> Tensor:
            """``(B, P) -> (B, C)``: the likelihood of an image of one pixel."""
            return self.likelihood(parameters[:, :, None, None]).sample(generator).flatten(1)

        return generate(self.network, draw, lambda pixel: pixel, n, cond).clamp(-1.0, 1.0)

    def check_networks(self) -> list[str]:
        """Run one blank image through the network."""
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                self.nll(torch.full((1, *self.image_shape), -1.0).to(self.device), self.labels_for(1, None))
        except RuntimeError as error:
            return [f"{type(self).__name__}: network and likelihood do not fit together: {error}"]
        return []
