"""Perceptual and adversarial terms that are added to a family's loss, in nats per image.

``w D LPIPS(x, x_hat) / temperature + d(t) lambda L_G(x_hat)``, and the discriminator's own loss: see `Realism`, below
its two parts.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from lit_vae.factories import Factory
from lit_vae.features import PerceptualDistance
from lit_vae.images import Shape
from lit_vae.objectives import Step
from lit_vae.objectives.adversarial import AdversarialLoss, adaptive_weight, gradient_norms, graft, in_float32
from lit_vae.ranges import NotNegativeFloat, NotNegativeInt, PositiveFloat, checked
from lit_vae.ranks import is_distributed
from lit_vae.realism.augment import Augmentation
from lit_vae.realism.penalties import Penalty
from lit_vae.schedules import Schedule, as_schedule

DiscriminatorFactory = Callable[[Shape], nn.Module]
"""``in_shape -> network`` from images to logits ``(B, 1, h, w)``."""


class Perceptual(nn.Module):
    """``weight * D * distance(x, x_hat) / temperature`` nats, for images with D values.

    The weight has the units of papers: ``L1 + 1.0 LPIPS`` or ``MSE + 0.1 LPIPS`` for each value. The likelihood's
    temperature divides both terms, so a learned variance or scale does not change their balance (Rombach et al. 2022,
    app. G; in their code ``sum (|x - x_hat| + w LPIPS) / exp(s) + s``).

    Args:
        distance: a distance between images, from `lit_vae.features`.
        weight: w.
    """

    @checked
    def __init__(self, distance: PerceptualDistance, weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.distance = distance
        self.weight = weight

    def problems(self, image_shape: Shape) -> list[str]:
        """Reasons why the features cannot be computed for images of this shape; empty if they can."""
        return self.distance.problems(image_shape)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The unweighted distance: ``(B, C, H, W), (B, C, H, W) -> (B,)``, with a gradient to ``x_hat`` only."""
        return self.distance(x, x_hat)

    def nats(self, distance: Tensor, x: Tensor, temperature: Tensor) -> Tensor:
        """The weighted distance ``(B,)``, in nats per image."""
        return self.weight * x[0].numel() / temperature * distance


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

    def judge(self, x: Tensor, x_hat: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """The discriminator's loss ``()`` for images and (detached) reconstructions, its terms ``(B,)`` and scalars.

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
        return loss, terms, {name: penalty.detach() for name, penalty in penalties.items()}

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


class Realism(nn.Module):
    """``w D LPIPS(x, x_hat) / temperature + d(t) lambda L_G(x_hat)``: the terms of VQGAN and of latent diffusion.

    Esser et al., "Taming Transformers", 2021, eq. 6 and 7; Rombach et al., "High-Resolution Image Synthesis with Latent
    Diffusion Models", 2022, app. G. Neither term is a likelihood: they are logged under their own names and do not
    change ``distortion`` and ``elbo``.

    Args:
        perceptual: the perceptual term; null: none.
        adversary: the discriminator and its loss; null: none.
    """

    def __init__(self, perceptual: Perceptual | None = None, adversary: Adversary | None = None) -> None:
        super().__init__()
        if perceptual is None and adversary is None:
            raise ValueError("Realism: perceptual and adversary are both null. Set one, or remove model.realism.")
        self.perceptual = perceptual
        self.adversary = adversary

    @property
    def term_names(self) -> tuple[str, ...]:
        """Per-image terms that it adds to an evaluation. The adversarial term is for training only."""
        return ("perceptual", "perceptual_nats") if self.perceptual is not None else ()

    def build(self, image_shape: Shape) -> None:
        """Make the networks that depend on the image shape."""
        if self.adversary is not None:
            self.adversary.build(image_shape)

    def problems(self, image_shape: Shape) -> list[str]:
        """Reasons why it cannot be trained on images of this shape; empty if it can."""
        parts = [part for part in (self.perceptual, self.adversary) if part is not None]
        return [problem for part in parts for problem in part.problems(image_shape)]

    def evaluate(self, x: Tensor, x_hat: Tensor, temperature: Tensor) -> dict[str, Tensor]:
        """The perceptual term, raw and in nats, ``(B,)`` each, with a gradient to ``x_hat`` and the temperature."""
        if self.perceptual is None:
            return {}
        perceptual = self.perceptual
        distance = graft(lambda image: perceptual(x, image), x_hat)
        return {"perceptual": distance, "perceptual_nats": perceptual.nats(distance, x, temperature)}

    def forward(
        self,
        x: Tensor,
        x_hat: Tensor,
        distortion: Tensor,
        temperature: Tensor,
        last_layer: Tensor | None,
        step: int | None,
    ) -> Step:
        """The terms to add to those of a family, with ``loss (B,)`` to add to its loss.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            x_hat: their reconstructions, the likelihood's mean.
            distortion: ``-log p(x|z)``, ``(B,)`` nats.
            temperature: divisor of the likelihood's error, ``()``.
            last_layer: weight of the decoder's last layer, for the adaptive weight.
            step: optimizer steps taken; None: an evaluation, which has no adversary.
        """
        terms = self.evaluate(x, x_hat, temperature)
        loss = terms.get("perceptual_nats", torch.zeros_like(distortion))
        adversary = self.adversary
        if adversary is None or step is None:
            return Step({**terms, "loss": loss})
        scalars: dict[str, Tensor | float] = {}
        if adversary.is_active(step):
            generator = adversary.generator_loss(x_hat)
            scalars |= adversary.balance(distortion + loss, generator, last_layer)
            weight = adversary.weight(step) * adversary.scale
            scalars["adversarial_weight"] = weight
            terms["adversarial"] = generator
            terms["adversarial_nats"] = weight * scalars["adaptive_weight"] * generator
            loss = loss + terms["adversarial_nats"]
        if not adversary.learns(step):
            idle = adversary.idle() if is_distributed() else 0.0
            return Step({**terms, "loss": loss}, scalars=scalars, other_loss=idle)
        its_loss, its_terms, its_scalars = adversary.judge(x, x_hat, step)
        return Step({**terms, **its_terms, "loss": loss}, scalars={**scalars, **its_scalars}, other_loss=its_loss)
