"""Base classes of the image families: the interface for callbacks and tools."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor, nn

from lit_vae.distributions import Distribution
from lit_vae.factories import NetworkFactory as NetworkFactory  # noqa: PLC0414  (part of the interface of families)
from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, checked


class ImageModel(Model):
    """A model of images ``x (B, C, H, W)`` in [-1, 1] with labels ``y (B,)`` int64, which most families ignore."""

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if len(image_shape) != 3:
            raise ValueError(
                f"{type(self).__name__}: image_shape (={image_shape}) must be [channels, height, width]."
                " Set model.init_args.image_shape."
            )
        self.image_shape: Shape = tuple(image_shape)
        self.likelihood = likelihood

    @abstractmethod
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` images in [-1, 1], ``(n, C, H, W)``."""

    def problems(self, spec: ImageSpec) -> list[str]:
        """Problems between this model and the data, one message each; empty if there are none."""
        if not isinstance(spec, ImageSpec):
            return [
                f"{type(self).__name__}: it is a model of images, and the data are a {type(spec).__name__}."
                " Take image data, or lit_vae.models.CodePrior for codes."
            ]
        found = self.likelihood.problems(spec)
        if self.image_shape != spec.shape:
            found.append(
                f"{type(self).__name__}: model.image_shape (={list(self.image_shape)}) is not the shape of the data's"
                f" images {list(spec.shape)} ([channels, height, width]). Change"
                " model.init_args.image_shape or the data."
            )
        return found + self._label_problems(spec.num_classes)

    def _reported(self, terms: dict[str, Any], spec: Any) -> dict[str, Any]:
        """Drop ``elbo`` and ``nll`` if the likelihood is not a probability of the data (soft targets)."""
        if spec is None or self.likelihood.is_probability(spec):
            return terms
        return {name: value for name, value in terms.items() if name not in ("elbo", "nll")}

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Add bits per dimension if there is a log-likelihood or an ELBO."""
        nats = means["nll"] if "nll" in means else -means["elbo"] if "elbo" in means else None
        bits = self.likelihood.bits_per_dim(nats, spec) if nats is not None and spec is not None else None
        return means if bits is None else {**means, "bits_per_dim": bits}


class Autoencoder(ImageModel):
    """A model that maps images to latents ``z (B, *latent_shape)`` and back. See also `lit_vae.models.abilities`."""

    sampling_caveat: str = ""
    """Why samples are poor, with the remedy, if latents of images do not follow the prior of `sample_latents`."""

    decoder: nn.Module

    def __init__(
        self,
        image_shape: list[int],
        latent_shape: Shape,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__(image_shape, likelihood, optimizer, lr_scheduler)
        self.latent_shape = latent_shape

    @property
    def decoder_channels(self) -> int:
        """Channels of the decoder's output: by default the likelihood's parameters."""
        return self.likelihood.num_parameters(self.image_shape[0])

    @abstractmethod
    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """The latent of an image; the mean of a posterior: ``-> (B, *latent_shape)``."""

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """``p(x | z)`` for ``z (B, *latent_shape)``; ``y`` is ignored unless a family says otherwise."""
        return self.likelihood(self.decoder(z, None))

    @abstractmethod
    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` draws from the prior with its standard deviation times ``temperature``: ``-> (n, *latent_shape)``."""

    def reconstruction(self, x: Tensor, y: Tensor) -> Distribution:
        """``p(x | z)`` at the image's latent."""
        return self.decode(self.embed(x, y), y)

    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Decoder *mean* at the image's latent, clamped to [-1, 1]: ``(B, C, H, W) -> (B, C, H, W)``."""
        return self.reconstruction(x, y).mean.clamp(-1.0, 1.0)

    @torch.no_grad()
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Decoder *means* at draws from the prior, clamped to [-1, 1]: ``-> (n, C, H, W)``."""
        y = self.labels_for(n, y)
        return self.decode(self.sample_latents(n, y, temperature, generator), y).mean.clamp(-1.0, 1.0)

    def check_networks(self) -> list[str]:
        """Run one blank image through encoder and decoder, to find wrong shapes before any data is read."""
        training = self.training
        x = torch.zeros(1, *self.image_shape).to(next(self.parameters()))
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                y = self.labels_for(1, None)
                shape = tuple(self.decode(self.embed(x, y), y).mean.shape[1:])
        except RuntimeError as error:
            return [f"{type(self).__name__}: encoder and decoder do not fit together: {error}"]
        finally:
            self.train(training)
        if shape != self.image_shape:
            return [f"{type(self).__name__}: the decoder makes images {list(shape)}, not {list(self.image_shape)}."]
        return []

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Latents ``z``, reconstructions ``x_hat`` and labels ``y`` of a batch."""
        x, y = batch
        z = self.embed(x, y)
        return {"z": z, "x_hat": self.decode(z, y).mean.clamp(-1.0, 1.0), "y": y}
