"""An autoencoder with perceptual and adversarial terms: what they need from a LightningModule."""

from types import SimpleNamespace
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lit_vae.distributions import Distribution
from lit_vae.images import Batch, Shape
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import Autoencoder
from lit_vae.objectives import Step
from lit_vae.realism import Adversary, Realism


class WithRealism(Autoencoder):
    """An `Autoencoder` with an optional `Realism`.

    It adds a perceptual term to the loss, and in training an adversarial term. The discriminator is a second parameter
    group of the same optimizer.
    """

    def __init__(
        self,
        image_shape: list[int],
        latent_shape: Shape,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        realism: Realism | None,
    ) -> None:
        if realism is not None:
            self.term_names = (*self.term_names, *realism.term_names)
        super().__init__(image_shape, latent_shape, likelihood, optimizer, lr_scheduler)
        self.realism = realism
        self.has_added_terms = realism is not None
        if realism is not None:
            realism.build(self.image_shape)

    @property
    def adversary(self) -> Adversary | None:
        """The discriminator and its loss, if there is one."""
        return self.realism.adversary if self.realism is not None else None

    def add_terms(self, result: Step, batch: Batch, step: int | None) -> Step:
        """Add the perceptual term and, in training, the adversarial term to the loss."""
        assert self.realism is not None
        assert result.decoded is not None
        x = batch[0] if result.target is None else result.target
        x_hat, temperature = _first_mean(result.decoded), self.likelihood.temperature
        last_layer = getattr(self.decoder, "last_layer", None)
        added = self.realism(x, x_hat, result.terms["distortion"], temperature, last_layer, step)
        terms = {**result.terms, **added.terms, "loss": result.terms["loss"] + added.terms["loss"]}
        return result._replace(terms=terms, scalars={**result.scalars, **added.scalars}, other_loss=added.other_loss)

    def parameter_groups(self) -> Any:
        """All parameters; with an adversary two groups: the autoencoder, and the discriminator with its settings."""
        if self.adversary is None:
            return super().parameter_groups()
        theirs = list(self.adversary.parameters())
        known = {id(parameter) for parameter in theirs}
        ours = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": ours}, {"params": theirs, **self.adversary.optimizer}]

    def configure_optimizers(self) -> Any:
        """See `Model`; also checks the settings of the discriminator's group, because torch does not."""
        configured = super().configure_optimizers()
        if self.adversary is not None:
            self.adversary.check_settings(configured["optimizer"] if isinstance(configured, dict) else configured)
        return configured

    def is_settled(self, step: int) -> bool:
        """Only once the adversary's weight is final: before, every other number of the decoder is better."""
        return self.adversary is None or self.adversary.weight(step) == self.adversary.weight.final

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip each parameter group by itself: the discriminator must not shrink the autoencoder's gradient."""
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and scales and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise ValueError(
                f"trainer.gradient_clip_val (={gradient_clip_val}): a fused optimizer removes the loss scaling of"
                " float16 only after clipping. Set model.init_args.optimizer.init_args.fused: false."
            )
        for group in optimizer.param_groups:
            view = SimpleNamespace(param_groups=[group])
            self.clip_gradients(view, gradient_clip_val, gradient_clip_algorithm)  # type: ignore[arg-type]

    def on_after_backward(self) -> None:
        """Remove the zero gradients of a discriminator that does not learn yet."""
        if self.adversary is not None and not self.adversary.learns(self.global_step):
            self.adversary.forget_idle_gradients()

    def loss_problems(self) -> list[str]:
        """Reasons why the `Realism` cannot be used; empty if it can."""
        if self.realism is None:
            return []
        found = self.realism.problems(self.image_shape)
        adapts = self.adversary is not None and self.adversary.max_adaptive_weight is not None
        if adapts and not hasattr(self.decoder, "last_layer"):
            found.append(
                f"{type(self).__name__}: the adaptive weight of realism.adversary needs {type(self.decoder).__name__}"
                " to name its last layer, as a property last_layer. Add it, or set max_adaptive_weight: null."
            )
        return found


def _first_mean(decoded: Distribution) -> Tensor:
    """Means ``(B, C, H, W)``; of L samples, those of the first."""
    mean = decoded.mean
    return mean[0] if mean.ndim == 5 else mean
