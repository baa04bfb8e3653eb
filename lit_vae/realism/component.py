"""The component itself: what a training step pays beside the family's own terms."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_vae.features import PerceptualDistance
from lit_vae.images import Shape
from lit_vae.objectives.adversarial import graft
from lit_vae.ranges import PositiveFloat, checked
from lit_vae.ranks import is_distributed
from lit_vae.realism.adversary import Adversary


class Perceptual(nn.Module):
    """``weight * D * distance(x, x_hat) / temperature`` nats, of images with D values.

    The weight is in the units that papers state it in: ``L1 + 1.0 LPIPS`` or ``MSE + 0.1 LPIPS`` *for each value*, with
    the likelihood's temperature dividing both (Rombach et al. 2022, app. G, as code has it:
    ``sum (|x - x_hat| + w LPIPS) / exp(s) + s``). So the balance of the two is the same whatever variance or scale is
    learned.

    Args:
        distance: between images; `lit_vae.features`.
        weight: w.
    """

    @checked
    def __init__(self, distance: PerceptualDistance, weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.distance = distance
        self.weight = weight

    def problems(self, image_shape: Shape) -> list[str]:
        """Why the features cannot be had of such images."""
        return self.distance.problems(image_shape)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The distance itself: ``(B, C, H, W), (B, C, H, W) -> (B,)``, with gradient to ``x_hat`` alone."""
        return self.distance(x, x_hat)

    def nats(self, distance: Tensor, x: Tensor, temperature: Tensor) -> Tensor:
        """A distance ``(B,)`` in nats per image."""
        return self.weight * x[0].numel() / temperature * distance


class RealismOutput(NamedTuple):
    """Of a training step.

    Attributes:
        loss: what the autoencoder pays, ``(B,)`` nats, with gradient to it alone.
        discriminator_loss: ``()``, with gradient to the discriminator alone.
        terms: raw and weighted terms by name, ``(B,)``.
        scalars: weights and norms by name, ``()``.
    """

    loss: Tensor
    discriminator_loss: Tensor
    terms: dict[str, Tensor]
    scalars: dict[str, Tensor | float]


class Realism(nn.Module):
    """``w D LPIPS(x, x_hat) / temperature + d(t) lambda L_G(x_hat)``: the terms of VQGAN and of latent diffusion.

    Esser et al., "Taming Transformers", 2021, eq. 6 and 7; Rombach et al., "High-Resolution Image Synthesis with Latent
    Diffusion Models", 2022, app. G. Neither is a likelihood: ``distortion`` and ``elbo`` of a family stay what they
    are, and the two have names of their own.

    Args:
        perceptual: a distance between features; null: none.
        adversary: a discriminator; null: none.
    """

    def __init__(self, perceptual: Perceptual | None = None, adversary: Adversary | None = None) -> None:
        super().__init__()
        if perceptual is None and adversary is None:
            raise ValueError("Realism: perceptual and adversary are both null. Give one, or leave model.realism out.")
        self.perceptual = perceptual
        self.adversary = adversary

    @property
    def term_names(self) -> tuple[str, ...]:
        """Per-image terms that it adds to an evaluation: the adversary's game has no meaning there."""
        return ("perceptual", "perceptual_nats") if self.perceptual is not None else ()

    def build(self, image_shape: Shape) -> None:
        """Make what depends on the images."""
        if self.adversary is not None:
            self.adversary.build(image_shape)

    def problems(self, image_shape: Shape) -> list[str]:
        """Everything that keeps it from being trained on such images."""
        parts = [part for part in (self.perceptual, self.adversary) if part is not None]
        return [problem for part in parts for problem in part.problems(image_shape)]

    def evaluate(self, x: Tensor, x_hat: Tensor, temperature: Tensor) -> dict[str, Tensor]:
        """The perceptual term, raw and in nats, ``(B,)`` each, with gradient to ``x_hat`` and the temperature."""
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
        step: int,
    ) -> RealismOutput:
        """A training step's terms.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            x_hat: their reconstructions, the likelihood's mean.
            distortion: ``-log p(x|z)``, ``(B,)`` nats.
            temperature: what the likelihood divides its error by, ``()``.
            last_layer: the decoder's, for the adaptive weight.
            step: optimizer steps taken.
        """
        terms = self.evaluate(x, x_hat, temperature)
        scalars: dict[str, Tensor | float] = {}
        loss = terms.get("perceptual_nats", torch.zeros_like(distortion))
        discriminator_loss = distortion.new_zeros(())
        adversary = self.adversary
        if adversary is not None and adversary.is_active(step):
            generator = adversary.generator_loss(x_hat)
            scalars |= adversary.balance(distortion + loss, generator, last_layer)
            weight = adversary.weight(step) * adversary.scale
            scalars["adversarial_weight"] = weight
            terms["adversarial"] = generator
            terms["adversarial_nats"] = weight * scalars["adaptive_weight"] * generator
            loss = loss + terms["adversarial_nats"]
        if adversary is not None and adversary.learns(step):
            judgement = adversary.judge(x, x_hat, step)
            discriminator_loss = judgement.loss
            terms |= judgement.terms
            scalars |= judgement.scalars
        elif adversary is not None and is_distributed():
            discriminator_loss = adversary.idle()
        return RealismOutput(loss, discriminator_loss, terms, scalars)
