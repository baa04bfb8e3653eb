"""Diffusion of the latents of a trained autoencoder.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022; as a likelihood: Vahdat et al.,
"Score-based Generative Modeling in Latent Space", 2021.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.diffusion import GaussianDiffusion, Sampling
from lit_vae.distributions import DiagonalGaussian, Distribution
from lit_vae.encoded import EncodedSpec
from lit_vae.latents import LatentBatch, LatentSpec
from lit_vae.models.abilities import SecondStage
from lit_vae.models.base import Autoencoder
from lit_vae.models.denoising import DenoisingModel
from lit_vae.networks.clock import DenoiserFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import BelowOne, NotNegativeInt, PositiveInt, checked
from lit_vae.sampling import CodeSampling


class LatentDiffusion(DenoisingModel, SecondStage):
    """A prior over the latents that `lit_vae.data.Latents` draws from the posteriors of stage 1.

    The network sees latents of mean 0 and variance 1 in each channel. ``latent_nll`` bounds ``-log p(z)`` of the
    latents that stage 1 decodes, so it does not depend on their scale: ``-log p(z) = -log p(z') + sum ln std``. The
    ``rate`` is ``latent_nll`` minus the entropy of ``q(z|x)``: the nats that the latent of an image costs. It compares
    with the rates of other priors of the same stage 1. Rate and distortion together bound ``-log p(x)`` only if the
    decoder was trained as a likelihood. There is no ``rate`` if stage 1 has no posterior, as an AE.

    Args:
        latent_shape: of a latent, ``[c, h, w]``.
        network: a denoising network, such as `lit_vae.networks.UNet`.
        diffusion: noise schedule, meaning of the network's output, and what it is trained on.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        sampling: how latents are drawn; null: 50 steps of `DDIM`.
        num_classes: number of labels that it is conditioned on; 0: none.
        label_dropout: share of the training latents whose label is hidden, so that samples can be guided.
    """

    encoded = "latents"
    term_names = ("loss", "latent_nll", "prior", "last", "diffusion")

    def step(self, batch: LatentBatch, step: int | None, draws: Draws | None) -> Step:
        """Minus a bound of log p(z), see `bound`; ``prior``, ``last`` and ``diffusion`` are of the scaled latents."""
        result, terms = self.bound(batch.z, batch.y, step is not None, draws)
        if not terms:
            return result
        nll = terms["prior"] + terms["last"] + terms["diffusion"] + self.log_scale
        return result._replace(terms={**result.terms, "latent_nll": nll, **terms})

    def last_distribution(self, mean: Tensor, log_var: Tensor) -> Distribution:
        """A Gaussian around ``z_0 / alpha_0``, with its noise."""
        return DiagonalGaussian(mean, log_var, mean.ndim - 1)

    @checked
    def __init__(
        self,
        latent_shape: list[PositiveInt],
        network: DenoiserFactory,
        diffusion: GaussianDiffusion,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        sampling: Sampling | None = None,
        num_classes: NotNegativeInt = 0,
        label_dropout: BelowOne = 0.1,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if len(latent_shape) != 3:
            raise ValueError(
                f"LatentDiffusion: latent_shape (={latent_shape}) must be that of a map, [channels, height, width]. Set"
                " model.init_args.latent_shape; for a vector take lit-vae fit-prior RUN --prior flow."
            )
        self.add_network(tuple(latent_shape), network, diffusion, sampling, num_classes, label_dropout)
        channels = latent_shape[0]
        self.register_buffer("latent_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(channels, 1, 1))

    latent_mean: Tensor
    latent_std: Tensor

    @property
    def log_scale(self) -> Tensor:
        """``sum ln std`` over the dimensions of a latent, ``()``."""
        _, height, width = self.diffused_shape
        return height * width * self.latent_std.log().sum()

    def setup(self, stage: str) -> None:
        """Also take the statistics of the latents, which are in the checkpoint from then on."""
        super().setup(stage)
        spec = self.data_spec
        if isinstance(spec, LatentSpec):
            self.latent_mean.copy_(torch.tensor(spec.mean).view(-1, 1, 1))
            self.latent_std.copy_(torch.tensor(spec.std).view(-1, 1, 1))

    def sample_latents(self, y: Tensor, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """One latent for each label, as stage 1 decodes it: ``(n,) -> (n, c, h, w)``."""
        return self._unscaled(self.draw(y, temperature, generator))

    def as_images(self, x: Tensor, y: Tensor, stage1: Autoencoder) -> Tensor:
        """Decoder means at latents as the network sees them, clamped to [-1, 1]."""
        return stage1.decode(self._unscaled(x).to(stage1.dtype), y).mean.clamp(-1.0, 1.0)

    def _unscaled(self, z: Tensor) -> Tensor:
        return z * self.latent_std + self.latent_mean

    @torch.no_grad()
    def sample_through(
        self,
        stage1: Autoencoder,
        y: Tensor,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        generator: Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Decoder means at drawn latents, clamped; see `SecondStage`."""
        return self.as_images(self.draw(y, sampling.temperature, generator), y, stage1)

    def problems(self, spec: Any) -> list[str]:
        """Images or codes instead of latents, another shape, labels that do not fit, guidance without classes."""
        if not isinstance(spec, LatentSpec):
            what = "codes" if isinstance(spec, EncodedSpec) else "images"
            return [
                f"LatentDiffusion: it is a model of latents, and the data are {what}. Take lit_vae.data.Latents of"
                " lit-vae encode RUN."
            ]
        found = self.sampling_problems()
        if self.diffused_shape != tuple(spec.shape):
            found.append(
                f"LatentDiffusion: model.latent_shape (={list(self.diffused_shape)}) is not that of the latents,"
                f" {list(spec.shape)}. Set model.init_args.latent_shape."
            )
        return found + self._label_problems(spec.num_classes)

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Add the rate: ``latent_nll`` minus the mean entropy of the split's posteriors, if they have one."""
        entropy = spec.entropy if isinstance(spec, LatentSpec) else None
        if entropy is None or split not in entropy or "latent_nll" not in means:
            return means
        return {**means, "rate": means["latent_nll"] - entropy[split]}
