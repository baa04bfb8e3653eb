"""Base class of pictures of a model: when they are drawn, from which images and with which noise."""

from abc import abstractmethod
from collections.abc import Iterable
from itertools import chain, count
from typing import Any, Literal, Protocol

from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Generator, Tensor

from callbacks.periodic import Periodic, untouched
from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.models.abilities import HasLevels, HasPosterior
from lit_vae.models.base import Autoencoder
from lit_vae.models.module import Model
from lit_vae.run.panels import log_panel

Split = Literal["train", "val", "test"]


class Images(Protocol):
    """The part of a data module that pictures use."""

    def example_batch(self, n: int, split: Split = "val") -> Batch:
        """``n`` images of a split, or all if there are fewer; always the same."""

    def example_dataloader(self, n: int, split: Split = "val") -> Iterable[Batch]:
        """The same images in batches, on every rank."""


class Panel(Periodic):
    """One picture at the end of a validation: ``media/<name>/step_<n>.png``, and ``media/<name>`` in the loggers.

    Only rank zero draws, so `draw` must not call a collective. With `callbacks.EMA` the model holds the averaged
    weights, for any order of the callbacks. The model is in eval mode, and torch's random state is restored afterwards.
    """

    name: str
    caption: str = ""
    num_examples: int = 0
    """Largest number of validation images from ``datamodule.example_batch``, which is called once before training."""

    needs_images: bool = True
    """Whether it needs validation images."""

    @abstractmethod
    def draw(self, model: Any, images: Images) -> Image.Image:
        """The picture. It depends on weights and data only; noise comes from its own generators."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model or data that it cannot draw; number the second of two pictures with one name."""
        super().setup(trainer, pl_module, stage)
        before = list(trainer.callbacks)  # type: ignore[attr-defined]
        taken = {other.name for other in before[: before.index(self)] if isinstance(other, Panel)}
        own = self.name
        self.name = next(name for name in chain([own], (f"{own}_{n}" for n in count(2))) if name not in taken)
        if stage in ("fit", "validate") and self.needs_images:
            datamodule = getattr(trainer, "datamodule", None)
            if not all(hasattr(datamodule, name) for name in ("example_batch", "example_dataloader")):
                raise self._refuse(
                    "it needs validation images from a data module with"
                    f" example_batch and example_dataloader; trainer.datamodule is {type(datamodule).__name__}.",
                    "Train on a lit_vae.data module, or remove it from trainer.callbacks.",
                )
            if self.num_examples:
                datamodule.example_batch(self.num_examples)  # type: ignore[union-attr]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the picture, write it, and send it to the loggers."""
        if not self.due(trainer) or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, self.accepts)  # by `setup`
        with untouched(pl_module):
            picture = self.draw(pl_module, getattr(trainer, "datamodule", None))  # type: ignore[arg-type]
        log_panel(trainer, self.name, picture, self.caption, self.step(trainer))


def to_model(batch: Batch, model: Model) -> Batch:
    """The batch on the model's device, images in its dtype."""
    x, y = batch  # or latents
    return Batch(x.to(device=model.device, dtype=next(model.parameters()).dtype), y.to(model.device))


def example_images(images: Images, n: int, model: Model, split: Split = "val") -> Iterable[Batch]:
    """Batches of ``n`` images of a split, or of all if there are fewer, on the model's device."""
    for batch in images.example_dataloader(n, split):
        yield to_model(batch, model)


def prior_of(model: Autoencoder, y: Tensor) -> DiagonalGaussian | None:
    """``p(z | y)`` for labels ``y (B,)``; None for a family without a prior, or with one that is no Gaussian."""
    if isinstance(model, HasLevels):  # its latent is in units of the priors
        zeros = next(model.parameters()).new_zeros(len(y), *model.latent_shape)
        return DiagonalGaussian(zeros, zeros)
    prior = model.prior(y) if isinstance(model, HasPosterior) else None
    return prior if isinstance(prior, DiagonalGaussian) else None


def posterior_of(model: Autoencoder, batch: Batch) -> DiagonalGaussian | None:
    """``q(z | x)`` of a batch; None for a family without a posterior, or with one that is no Gaussian."""
    posterior = model.encode(*batch) if isinstance(model, HasPosterior) else None
    return posterior if isinstance(posterior, DiagonalGaussian) else None


def prior_latents(model: Autoencoder, y: Tensor, temperature: float | list[float], seed: int) -> Tensor:
    """Draws from the prior for labels ``y (n,)``, with noise that depends on ``seed`` only: ``(n, *latent)``.

    The noise is drawn on the CPU, so that the same weights give the same picture on every device. A model with levels
    takes a temperature for each; panels refuse a list for others.
    """
    return model.sample_latents(len(y), y, temperature, Generator().manual_seed(seed))  # type: ignore[arg-type]


def decode_means(model: Autoencoder, z: Tensor, y: Tensor) -> Tensor:
    """Decoder means at ``z (n, *latent)``, clamped to [-1, 1]: ``(n, C, H, W)``."""
    return model.decode(z, y).mean.clamp(-1.0, 1.0)


def decode_draws(model: Autoencoder, z: Tensor, y: Tensor, seed: int) -> Tensor:
    """Draws from ``p(x | z, y)``, clamped to [-1, 1]: ``(n, C, H, W)``, with noise from the CPU."""
    return model.decode(z, y).sample(Generator().manual_seed(seed)).clamp(-1.0, 1.0)
