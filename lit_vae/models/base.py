"""What every autoencoding family is: the interface that callbacks, tools and priors rely on, and the shared plumbing.

The algorithm of a family stands in its own file; nothing here knows an objective.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters
from torch import Generator, Tensor, nn
from torchmetrics import MeanMetric

from lit_vae.distributions import Distribution
from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.likelihoods import Likelihood

NetworkFactory = Callable[[Shape, Shape, int], nn.Module]
"""``(in_shape, out_shape, cond_dim) -> network``: a class of `lit_vae.networks` whose own arguments are given."""

EVALUATION_SEED = 2**31 - 1


class Autoencoder(LightningModule, ABC):
    """Images to latents and back.

    Shapes: images ``x (B, C, H, W)`` in [-1, 1], labels ``y (B,)`` int64 (ignored by families without labels), latents
    ``z (B, *latent_shape)``.

    Every number that it logs is a mean over images of a per-image term: ``{train,val,test}/<term>``.
    """

    term_names: tuple[str, ...]
    """Per-image terms of an evaluation, as in ``val/<term>``."""

    num_classes: int = 0
    """Number of labels that it is conditioned on; 0: labels are ignored."""

    def __init__(
        self,
        image_shape: list[int],
        latent_shape: Shape,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__()
        # From the command line the plain configuration is kept, and a checkpoint alone builds the model again. From
        # Python there are only built components, which a checkpoint that loads with weights_only=True cannot hold.
        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(
                f"{type(self).__name__}: image_shape (={image_shape}) must be [channels, height, width]."
                " Set model.init_args.image_shape."
            )
        self.image_shape: Shape = tuple(image_shape)
        self.latent_shape = latent_shape
        self.likelihood = likelihood
        self.decoder: nn.Module
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        splits = ("val", "test")
        # sums of a whole set in float64: the mean of 60,000 images then has no error worth the name
        means = {
            split: nn.ModuleDict({k: MeanMetric().set_dtype(torch.float64) for k in self.term_names})
            for split in splits
        }
        self.epoch_means = nn.ModuleDict(means)
        self._evaluation_noise: Generator | None = None
        self.last_logged: tuple[int, dict[str, Any]] = (-1, {})

    # ---- the interface ----------------------------------------------------------------------------------------------

    @abstractmethod
    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """The latent that stands for an image (of a posterior: its mean): ``-> (B, *latent_shape)``."""

    @abstractmethod
    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` draws from the prior with its standard deviation times ``temperature``: ``-> (n, *latent_shape)``."""

    @abstractmethod
    def evaluation_terms(self, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """The per-image terms ``(B,)`` named in `term_names`, in nats."""

    def condition(self, y: Tensor) -> Tensor | None:
        """What the networks are told of labels ``y (B,)``: ``(B, cond_dim)``, or None."""
        return None

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """``p(x | z, y)`` for ``z (B, *latent)``, or for L samples of each ``(L, B, *latent)``."""
        batch = z.shape[: z.ndim - len(self.latent_shape)]
        cond = self.condition(y)
        if cond is not None:
            cond = cond.expand(*batch, -1).flatten(0, -2)
        parameters = self.decoder(z.reshape(-1, *self.latent_shape), cond)
        return self.likelihood(parameters.unflatten(0, batch))

    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Decoder *mean* at the image's latent, clamped to [-1, 1]: ``(B, C, H, W) -> (B, C, H, W)``."""
        return self.decode(self.embed(x, y), y).mean.clamp(-1.0, 1.0)

    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Decoder *means* at draws from the prior, clamped to [-1, 1]: ``-> (n, C, H, W)``."""
        y = self.labels_for(n, y)
        return self.decode(self.sample_latents(n, y, temperature, generator), y).mean.clamp(-1.0, 1.0)

    def labels_for(self, n: int, y: Tensor | None) -> Tensor:
        """``y`` if given; else one of each class in turn ``(n,)``, or -1 where labels mean nothing."""
        if y is not None:
            return y.to(self.device)
        if self.num_classes:
            return torch.arange(n, device=self.device) % self.num_classes
        return torch.full((n,), -1, device=self.device)

    # ---- before training --------------------------------------------------------------------------------------------

    def problems(self, spec: ImageSpec) -> list[str]:
        """Everything that keeps it from being trained on such images, each with its remedy; empty if nothing does."""
        found = self.likelihood.problems(spec)
        if self.image_shape != spec.shape:
            found.append(
                f"{type(self).__name__}: model.image_shape (={list(self.image_shape)}) is not the shape of the data's"
                f" images {list(spec.shape)} ([channels, height, width]). Change"
                " model.init_args.image_shape or the data."
            )
        return found

    def check_networks(self) -> list[str]:
        """Run one blank image through encoder and decoder: what they say of wrong shapes, before any data is read."""
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

    def configure_optimizers(self) -> Any:
        """The given optimizer over all parameters; a scheduler steps with every optimizer step."""
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._lr_scheduler(optimizer), "interval": "step"},
        }

    # ---- numbers ----------------------------------------------------------------------------------------------------

    @property
    def data_spec(self) -> ImageSpec | None:
        """What the data module at hand says of its images; None without one."""
        trainer = self._trainer
        return getattr(getattr(trainer, "datamodule", None), "spec", None) if trainer is not None else None

    def log_train(self, terms: dict[str, Tensor], **scalars: float) -> None:
        """Log means of per-image terms over the batches of all ranks as ``train/<term>``, on logging steps only.

        A logged key costs Lightning a third of a millisecond on *every* step, as much as a small network's backward.
        """
        if (self.global_step + 1) % self.trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        terms = self._reported(terms)
        means = torch.stack([value.detach().mean() for value in terms.values()])
        means = self.trainer.strategy.reduce(means, reduce_op="mean")
        values = dict(zip(terms, means.unbind(), strict=True))
        self.log_dict({f"train/{name}": value for name, value in values.items()}, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in scalars.items()})
        # loggers get it after the step's checkpoint is written: a run killed in between would miss a row
        self.last_logged = self.global_step, {f"train/{name}": value for name, value in {**values, **scalars}.items()}

    def _reported(self, terms: dict[str, Any]) -> dict[str, Any]:
        """Without an ELBO where the likelihood is none (soft targets)."""
        spec = self.data_spec
        if spec is None or self.likelihood.is_probability(spec):
            return terms
        return {name: value for name, value in terms.items() if name != "elbo"}

    def _evaluation_step(self, split: str, batch: Batch) -> None:
        for name, value in self.evaluation_terms(batch, self._evaluation_noise).items():
            self.epoch_means[split][name].update(value)  # type: ignore[index]

    def _evaluation_epoch_end(self, split: str) -> None:
        means = {name: metric.compute() for name, metric in self.epoch_means[split].items()}  # type: ignore[operator]
        for metric in self.epoch_means[split].values():  # type: ignore[operator]
            metric.reset()
        spec = self.data_spec
        if "elbo" in means and spec is not None:
            bits = self.likelihood.bits_per_dim(-means["elbo"], spec)
            if bits is not None:
                means["bits_per_dim"] = bits
        values = {f"{split}/{name}": value.float() for name, value in self._reported(means).items()}
        # the means are those of all ranks already: syncing them again changes nothing and says so to Lightning
        self.log_dict(values, prog_bar=split == "val", sync_dist=True)
        self._evaluation_noise = None  # a generator on a GPU cannot be copied with the module

    def _restart_evaluation_noise(self) -> None:
        # The same noise at every evaluation: two epochs differ by the weights alone, and training's is not touched.
        self._evaluation_noise = Generator(self.device).manual_seed(EVALUATION_SEED + self.global_rank)

    def on_validation_epoch_start(self) -> None:
        """See `_restart_evaluation_noise`."""
        self._restart_evaluation_noise()

    def on_test_epoch_start(self) -> None:
        """See `_restart_evaluation_noise`."""
        self._restart_evaluation_noise()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accumulate ``val/<term>``."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Accumulate ``test/<term>``."""
        self._evaluation_step("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<term>``, exact means over all images of all ranks."""
        self._evaluation_epoch_end("val")

    def on_test_epoch_end(self) -> None:
        """Log ``test/<term>``, exact means over all images of all ranks."""
        self._evaluation_epoch_end("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Latents ``z``, reconstructions ``x_hat`` and labels ``y`` of a batch."""
        x, y = batch
        z = self.embed(x, y)
        return {"z": z, "x_hat": self.decode(z, y).mean.clamp(-1.0, 1.0), "y": y}
