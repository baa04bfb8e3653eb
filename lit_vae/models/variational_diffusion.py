"""Diffusion of pixels with a bound of log p(x): Kingma et al., "Variational Diffusion Models", 2021."""

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.diffusion import GaussianDiffusion, Sampling
from lit_vae.distributions import Distribution
from lit_vae.images import Batch, ImageSpec
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import ImageModel
from lit_vae.models.denoising import DenoisingModel
from lit_vae.networks.clock import DenoiserFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import BelowOne, NotNegativeInt, PositiveInt, checked


class VariationalDiffusion(DenoisingModel, ImageModel):
    """A hierarchy of infinitely many noisy images, whose encoder is fixed: it only adds noise.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        network: a denoising network, such as `lit_vae.networks.UNet`.
        diffusion: noise schedule, meaning of the network's output, and what it is trained on.
        likelihood: ``p(x | z_0)``, `lit_vae.diffusion.PixelLevels`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        sampling: how images are drawn; null: 50 steps of `DDIM`.
        num_classes: number of labels that it is conditioned on; 0: none.
        label_dropout: share of the training images whose label is hidden, so that samples can be guided.
    """

    term_names = ("loss", "elbo", "rate", "distortion", "prior", "diffusion")

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Minus the bound of log p(x), see `bound`. Its rate is all that is needed to send z_0."""
        result, terms = self.bound(*batch, step is not None, draws)
        if not terms:
            return result
        rate, distortion = terms["prior"] + terms["diffusion"], terms["last"]
        bound = {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
        return result._replace(
            terms={**result.terms, **bound, "prior": terms["prior"], "diffusion": terms["diffusion"]}
        )

    def last_distribution(self, mean: Tensor, log_var: Tensor) -> Distribution:
        """The likelihood."""
        return self.likelihood(torch.cat([mean, log_var], 1))

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        network: DenoiserFactory,
        diffusion: GaussianDiffusion,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        sampling: Sampling | None = None,
        num_classes: NotNegativeInt = 0,
        label_dropout: BelowOne = 0.1,
    ) -> None:
        super().__init__(image_shape, likelihood, optimizer, lr_scheduler)
        self.add_network(self.image_shape, network, diffusion, sampling, num_classes, label_dropout)

    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` images, clamped to [-1, 1], ``(n, C, H, W)``; see `draw`."""
        return self.draw(self.labels_for(n, y), temperature, generator).clamp(-1.0, 1.0)

    def problems(self, spec: ImageSpec) -> list[str]:
        """Also: guidance without classes."""
        return super().problems(spec) + self.sampling_problems()
