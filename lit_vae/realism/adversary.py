"""The adversary: a discriminator, its loss, and the weight of the adversarial term."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_vae.factories import Factory
from lit_vae.images import Shape
from lit_vae.objectives.adversarial import AdversarialLoss, adaptive_weight, gradient_norms, graft, in_float32
from lit_vae.ranges import NotNegativeFloat, NotNegativeInt, PositiveFloat, checked
from lit_vae.realism.augment import Augmentation
from lit_vae.realism.penalties import Penalty
from lit_vae.schedules import Schedule, as_schedule

DiscriminatorFactory = Callable[[Shape], nn.Module]
"""``in_shape -> network`` from images to logits ``(B, 1, h, w)``."""


class DiscriminatorOutput(NamedTuple):
    """Discriminator's part of a step: its ``loss ()``, and logged ``terms (B,)`` and ``scalars ()``."""

    loss: Tensor
    terms: dict[str, Tensor]
    scalars: dict[str, Tensor]


class Adversary(nn.Module):
    """The adversarial loss ``d(t) lambda L_G`` of the autoencoder, and its discriminator, trained in the same step.

    Both players take a step from the same weights. They are two parameter groups of one optimizer, each with its own
    settings, so a batch is one optimizer step for schedules and checkpoints. Lightning does gradient accumulation,
    clipping (of each player separately) and loss scaling.

    An untrained discriminator ruins reconstructions. Train it before the decoder sees it: give ``weight`` a
    `lit_vae.schedules.LinearWarmup` with a ``delay`` above ``start_step``.

    Args:
        discriminator: `lit_vae.networks.PatchDiscriminator`.
        loss: `lit_vae.objectives.Hinge`, `NonSaturating` or `LeastSquares`.
        weight: d(t), a number or a schedule of optimizer steps that starts at 0.
        start_step: optimizer steps before the discriminator learns.
        max_adaptive_weight: the largest lambda; null: lambda is 1, and ``weight`` is in nats.
        optimizer: settings of the discriminator's parameter group, such as ``{lr: 2.0e-4, betas: [0.5, 0.9]}``.
        penalties: terms added to the discriminator's loss.
        augmentations: applied to all images that the discriminator sees.
    """

    scale: Tensor

    @checked
    def __init__(
        self,
        discriminator: DiscriminatorFactory,
        loss: AdversarialLoss,
        weight: NotNegativeFloat | Schedule,
        start_step: NotNegativeInt = 0,
        max_adaptive_weight: PositiveFloat | None = 1e4,
        optimizer: Annotated[dict[str, Any], torch.optim.Optimizer] = {},  # noqa: B006  (never mutated)
        penalties: list[Penalty] = [],  # noqa: B006
        augmentations: list[Augmentation] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        self.make_discriminator = Factory(discriminator)
        self.discriminator: nn.Module | None = None
        self.loss = loss
        self.weight = as_schedule(weight)
        self.start_step = start_step
        self.max_adaptive_weight = max_adaptive_weight
        self.optimizer = optimizer
        self.penalties = nn.ModuleList(penalties)
        self.augmentations = augmentations
        self.register_buffer("scale", torch.ones(()))  # callbacks.GANHealth lowers it; checkpoints keep it

    def check_settings(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ValueError if the discriminator's parameter group has settings that the optimizer does not know."""
        known = sorted(optimizer.defaults)
        if unknown := [name for name in self.optimizer if name not in known]:
            raise ValueError(
                f"Adversary: optimizer (={unknown}) must hold settings of {type(optimizer).__name__}:"
                f" {', '.join(known)}. Set model.init_args.realism.init_args.adversary.init_args.optimizer."
            )

    def build(self, image_shape: Shape) -> None:
        """Make the discriminator for images of this shape."""
        self.discriminator = self.make_discriminator(image_shape)

    def learns(self, step: int) -> bool:
        """Whether the discriminator is trained at this step."""
        return step >= self.start_step

    def is_active(self, step: int) -> bool:
        """Whether the autoencoder is trained against it at this step."""
        return self.weight(step) > 0.0

    def logits(self, x: Tensor) -> Tensor:
        """The discriminator's logits of augmented images: ``(B, C, H, W) -> (B, 1, h, w)``."""
        for augmentation in self.augmentations:
            x = augmentation(x)
        assert self.discriminator is not None
        return self.discriminator(x)

    def generator_loss(self, x_hat: Tensor) -> Tensor:
        """L_G ``(B,)``, with a gradient to ``x_hat`` but not to the discriminator."""
        return graft(lambda image: self.loss.generator(self.logits(image)), x_hat)

    def balance(self, reconstruction: Tensor, generator: Tensor, last_layer: Tensor | None) -> dict[str, Tensor]:
        """Lambda and its two gradient norms over all ranks, ``()`` each, from terms ``(B,)``."""
        if self.max_adaptive_weight is None:
            return {"adaptive_weight": reconstruction.new_ones(())}
        assert last_layer is not None  # `Autoencoder.problems`
        norms = gradient_norms([reconstruction, generator], last_layer)
        chosen = adaptive_weight(norms[0], norms[1], self.max_adaptive_weight)
        return {"adaptive_weight": chosen, "grad_norm_nll": norms[0], "grad_norm_adversarial": norms[1]}

    def judge(self, x: Tensor, x_hat: Tensor, step: int) -> DiscriminatorOutput:
        """The discriminator's loss for images and (detached) reconstructions.

        Images and reconstructions go through it separately. `generator_loss` sees reconstructions only, so batch
        statistics, if any, must be of reconstructions only here too.
        """
        real, fake = self.logits(x), self.logits(x_hat.detach())
        per_image = self.loss.discriminator(real, fake)
        penalties = {
            f"penalty_{type(penalty).__name__.lower()}": penalty(self.discriminator, x, real, fake, step)
            for penalty in self.penalties
        }
        loss = per_image.mean() + sum(penalties.values())
        real, fake = (in_float32(side.detach()).flatten(1) for side in (real, fake))
        right = (real > self.loss.threshold), (fake < self.loss.threshold)
        terms = {
            "discriminator": per_image,
            "logits_real": real.mean(1),
            "logits_fake": fake.mean(1),
            "logit_gap": real.mean(1) - fake.mean(1),
            "discriminator_accuracy": torch.stack([side.float().mean(1) for side in right]).mean(0),
        }
        return DiscriminatorOutput(loss, terms, {name: penalty.detach() for name, penalty in penalties.items()})

    def idle(self) -> Tensor:
        """Zero that depends on every parameter: DistributedDataParallel waits for the gradient of each."""
        return 0.0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()

    def forget_idle_gradients(self) -> None:
        """Drop the gradients of `idle`, so that the optimizer does not count these steps."""
        for parameter in self.parameters():
            parameter.grad = None

    def problems(self, image_shape: Shape) -> list[str]:
        """A decoder that sees the discriminator before it is trained."""
        first = next((step for step in range(self.start_step) if self.is_active(step)), None)
        if first is None:
            return []
        return [
            f"Adversary: weight is positive from step {first}, but the discriminator is trained from start_step"
            f" (={self.start_step}). Give weight a schedule with a delay of at least start_step, or lower start_step."
        ]
