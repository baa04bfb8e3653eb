"""What every family of images is: the interface that callbacks, tools and priors rely on."""

from abc import abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor, nn

from lit_vae.distributions import Distribution
from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, checked
from lit_vae.realism import Realism, Verdict

NetworkFactory = Callable[[Shape, Shape, int], nn.Module]
"""``(in_shape, out_shape, cond_dim) -> network``: a class of `lit_vae.networks` whose own arguments are given."""


class ImageModel(Model):
    """A model of images ``x (B, C, H, W)`` in [-1, 1], with labels ``y (B,)`` int64 (ignored by families without)."""

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
        """``n`` images in [-1, 1] as the family shows them, ``(n, C, H, W)``."""

    def problems(self, spec: ImageSpec) -> list[str]:
        """Everything that keeps it from being trained on such images, each with its remedy; empty if nothing does."""
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
        return found

    def _reported(self, terms: dict[str, Any], spec: Any) -> dict[str, Any]:
        """Without a log-likelihood, or a bound of it, where the likelihood is none (soft targets)."""
        if spec is None or self.likelihood.is_probability(spec):
            return terms
        return {name: value for name, value in terms.items() if name not in ("elbo", "nll")}

    def _with_derived(self, means: dict[str, Tensor], split: str, spec: Any) -> dict[str, Tensor]:
        """Bits per dimension beside a log-likelihood or an ELBO, where there are any."""
        nats = means["nll"] if "nll" in means else -means["elbo"] if "elbo" in means else None
        bits = self.likelihood.bits_per_dim(nats, spec) if nats is not None and spec is not None else None
        return means if bits is None else {**means, "bits_per_dim": bits}


class Autoencoder(ImageModel):
    """Images to latents ``z (B, *latent_shape)`` and back.

    With a `Realism`, the loss of a family, in training and in evaluation, has a perceptual term, and training a
    discriminator; see `training_loss`.
    """

    not_its_prior: str = ""
    """What `sample_latents` draws from, and what is to be done, where the latents of images do not follow it."""

    def __init__(
        self,
        image_shape: list[int],
        latent_shape: Shape,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        realism: Realism | None = None,
    ) -> None:
        if realism is not None:
            self.term_names = (*self.term_names, *realism.term_names)
        super().__init__(image_shape, likelihood, optimizer, lr_scheduler)
        self.latent_shape = latent_shape
        self.decoder: nn.Module
        self.realism = realism
        if realism is not None:
            realism.build(self.image_shape)

    @abstractmethod
    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """The latent that stands for an image (of a posterior: its mean): ``-> (B, *latent_shape)``."""

    @abstractmethod
    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` draws from the prior with its standard deviation times ``temperature``: ``-> (n, *latent_shape)``."""

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """``p(x | z, y)`` for ``z (B, *latent)``, or for L samples of each ``(L, B, *latent)``."""
        batch = z.shape[: z.ndim - len(self.latent_shape)]
        cond = self.condition(y)
        if cond is not None:
            cond = cond.expand(*batch, -1).flatten(0, -2)
        parameters = self.decoder(z.reshape(-1, *self.latent_shape), cond)
        return self.distribution(parameters.unflatten(0, batch))

    def distribution(self, decoded: Tensor) -> Distribution:
        """What the decoder's output ``(..., P, H, W)`` says of images: by default the likelihood's parameters."""
        return self.likelihood(decoded)

    def training_loss(self, x: Tensor, terms: dict[str, Tensor], decoded: Distribution, **scalars: float) -> Tensor:
        """What a training step minimises, and logs: the family's loss, and what its reconstructions lack in realism.

        Args:
            x: images ``(B, C, H, W)``.
            terms: of the family, ``(B,)``, ``loss`` and ``distortion`` among them.
            decoded: ``p(x | z)``, parameters ``(B, ...)`` or, of L samples, ``(L, B, ...)``; the first of them counts.
            scalars: to log beside the terms.
        """
        if self.realism is None:
            self.log_train(terms, **scalars)
            return terms["loss"].mean()
        last_layer = getattr(self.decoder, "last_layer", None)
        temperature = self.likelihood.temperature
        verdict: Verdict = self.realism(
            x, _first(decoded), terms["distortion"], temperature, last_layer, self.global_step
        )
        loss = terms["loss"] + verdict.loss
        self.log_train({**terms, **verdict.terms, "loss": loss}, **scalars, **verdict.scalars)
        return loss.mean() + verdict.discriminator_loss

    def with_realism(self, x: Tensor, terms: dict[str, Tensor], decoded: Distribution) -> dict[str, Tensor]:
        """Terms of an evaluation and, with a `Realism`, its own: the loss has the perceptual term, and no adversary."""
        if self.realism is None:
            return terms
        more = self.realism.evaluate(x, _first(decoded), self.likelihood.temperature)
        return {**terms, **more, "loss": terms["loss"] + more.get("perceptual_nats", 0.0)}

    def parameter_groups(self) -> Any:
        """All parameters; with an adversary two groups: the autoencoder, and the discriminator with its settings."""
        adversary = self.realism.adversary if self.realism is not None else None
        if adversary is None:
            return super().parameter_groups()
        theirs = list(adversary.parameters())
        known = {id(parameter) for parameter in theirs}
        ours = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": ours}, {"params": theirs, **adversary.optimizer}]

    def configure_optimizers(self) -> Any:
        """See `Model`; also checks the settings of the discriminator's group, which torch takes whatever they are."""
        configured = super().configure_optimizers()
        if self.realism is not None and self.realism.adversary is not None:
            optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
            self.realism.adversary.check_settings(optimizer)
        return configured

    def is_settled(self, step: int) -> bool:
        """Not before the decoder feels an adversary in full: it was better by every other number until then."""
        adversary = self.realism.adversary if self.realism is not None else None
        return adversary is None or adversary.weight(step) == adversary.weight.final

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Each parameter group by itself: a discriminator's gradient does not shrink the autoencoder's."""
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and scales and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"trainer.gradient_clip_val (={gradient_clip_val}): a fused optimizer undoes the scaling of float16"
                " itself, after gradients would be clipped. Set model.init_args.optimizer.init_args.fused: false."
            )
        for group in optimizer.param_groups:
            view = SimpleNamespace(param_groups=[group])
            self.clip_gradients(view, gradient_clip_val, gradient_clip_algorithm)  # type: ignore[arg-type]

    def on_after_backward(self) -> None:
        """Leave a discriminator that does not learn yet without gradients, even those of zero."""
        adversary = self.realism.adversary if self.realism is not None else None
        if adversary is not None and not adversary.learns(self.global_step):
            adversary.forget_idle_gradients()

    def loss_problems(self) -> list[str]:
        """What keeps a `Realism` from being used."""
        if self.realism is None:
            return []
        found = self.realism.problems(self.image_shape)
        adversary = self.realism.adversary
        adapts = adversary is not None and adversary.most_adaptive is not None
        if adapts and not hasattr(self.decoder, "last_layer"):
            found.append(
                f"{type(self).__name__}: the adaptive weight of realism.adversary needs {type(self.decoder).__name__}"
                " to name its last layer, as a property last_layer. Add it, or set most_adaptive: null."
            )
        return found

    def reconstruct(self, x: Tensor, y: Tensor) -> Tensor:
        """Decoder *mean* at the image's latent, clamped to [-1, 1]: ``(B, C, H, W) -> (B, C, H, W)``."""
        return self.decode(self.embed(x, y), y).mean.clamp(-1.0, 1.0)

    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Decoder *means* at draws from the prior, clamped to [-1, 1]: ``-> (n, C, H, W)``."""
        y = self.labels_for(n, y)
        return self.decode(self.sample_latents(n, y, temperature, generator), y).mean.clamp(-1.0, 1.0)

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

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Latents ``z``, reconstructions ``x_hat`` and labels ``y`` of a batch."""
        x, y = batch
        z = self.embed(x, y)
        return {"z": z, "x_hat": self.decode(z, y).mean.clamp(-1.0, 1.0), "y": y}


def _first(decoded: Distribution) -> Tensor:
    """Means ``(B, C, H, W)``, of the first of L samples where there are several."""
    mean = decoded.mean
    return mean[0] if mean.ndim == 5 else mean
