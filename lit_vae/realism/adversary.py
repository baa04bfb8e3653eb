"""The adversary: a discriminator, its loss, and how hard the decoder feels it."""

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
    """What the discriminator's side of a step comes to: its ``loss ()``; what is logged, ``(B,)`` and ``()`` each."""

    loss: Tensor
    terms: dict[str, Tensor]
    scalars: dict[str, Tensor]


class Adversary(nn.Module):
    """``d(t) lambda L_G`` for the autoencoder, and the discriminator that it is against, trained in the same step.

    One step is of both players at the same weights: the autoencoder sees the discriminator before its step, and the
    discriminator images that were made before the autoencoder's. They are two parameter groups of one optimizer, each
    with settings of its own; so a batch is one optimizer step, which schedules and checkpoints count, and gradient
    accumulation, clipping (of each player by itself) and loss scaling are Lightning's.

    A discriminator that begins with the decoder's first sight of it ruins reconstructions: give ``weight`` a
    `lit_vae.schedules.LinearWarmup` with a ``delay`` of more than ``start_step``.

    Args:
        discriminator: `lit_vae.networks.PatchDiscriminator`.
        loss: `lit_vae.objectives.Hinge`, `NonSaturating` or `LeastSquares`.
        weight: d(t), a number or a schedule of optimizer steps; 0 in the beginning.
        start_step: optimizer steps before the discriminator learns.
        max_adaptive_weight: the largest lambda; null: lambda is 1, and ``weight`` is in nats.
        optimizer: what the discriminator's parameter group has of its own, as ``{lr: 2.0e-4, betas: [0.5, 0.9]}``.
        penalties: of the discriminator.
        augmentations: of all that it sees.
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
        self.register_buffer("scale", torch.ones(()))  # turned down by callbacks.GANHealth, and kept in checkpoints

    def check_settings(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises ValueError for settings of its parameter group that the optimizer does not know."""
        known = sorted(optimizer.defaults)
        if unknown := [name for name in self.optimizer if name not in known]:
            raise ValueError(
                f"Adversary: optimizer (={unknown}) must have settings of {type(optimizer).__name__}:"
                f" {', '.join(known)}. Set model.init_args.realism.init_args.adversary.init_args.optimizer."
            )

    def build(self, image_shape: Shape) -> None:
        """Make the discriminator of such images."""
        self.discriminator = self.make_discriminator(image_shape)

    def learns(self, step: int) -> bool:
        """Whether the discriminator is trained at this step."""
        return step >= self.start_step

    def is_active(self, step: int) -> bool:
        """Whether the autoencoder is trained against it at this step."""
        return self.weight(step) > 0.0

    def logits(self, x: Tensor) -> Tensor:
        """What the discriminator says of images as it sees them: ``(B, C, H, W) -> (B, 1, h, w)``."""
        for augmentation in self.augmentations:
            x = augmentation(x)
        assert self.discriminator is not None
        return self.discriminator(x)

    def generator_loss(self, x_hat: Tensor) -> Tensor:
        """L_G ``(B,)``, with gradient to ``x_hat`` and to no weight of the discriminator."""
        return graft(lambda image: self.loss.generator(self.logits(image)), x_hat)

    def balance(self, reconstruction: Tensor, generator: Tensor, last_layer: Tensor | None) -> dict[str, Tensor]:
        """Lambda and the two gradient norms behind it, ``()`` each; of ``(B,)`` terms, over all ranks."""
        if self.max_adaptive_weight is None:
            return {"adaptive_weight": reconstruction.new_ones(())}
        assert last_layer is not None  # `Autoencoder.problems`
        norms = gradient_norms([reconstruction, generator], last_layer)
        chosen = adaptive_weight(norms[0], norms[1], self.max_adaptive_weight)
        return {"adaptive_weight": chosen, "grad_norm_nll": norms[0], "grad_norm_adversarial": norms[1]}

    def judge(self, x: Tensor, x_hat: Tensor, step: int) -> DiscriminatorOutput:
        """The discriminator's loss at images and (detached) reconstructions.

        Two forward passes, as the decoder's side is a third: batch statistics, where there are any, must be those of
        reconstructions alone here as they are there, or the two play against different functions.
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
        """Zero, by way of every parameter: DistributedDataParallel waits for a gradient of each at every step."""
        return 0.0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()

    def forget_idle_gradients(self) -> None:
        """So that the optimizer does not count steps in which nothing was learned."""
        for parameter in self.parameters():
            parameter.grad = None

    def problems(self, image_shape: Shape) -> list[str]:
        """Why it cannot judge such images, or begins too late."""
        first = next((step for step in range(self.start_step) if self.is_active(step)), None)
        if first is None:
            return []
        return [
            f"Adversary: the decoder feels the discriminator from step {first}, before it is trained: start_step"
            f" (={self.start_step}). Give weight a schedule with a delay of at least start_step, or lower that."
        ]
