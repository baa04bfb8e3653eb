"""The realism component: perceptual and adversarial terms that are added to a family's loss."""

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


class RealismOutput(NamedTuple):
    """Result of a training step.

    Attributes:
        loss: the autoencoder's loss, ``(B,)`` nats, with a gradient to the autoencoder only.
        discriminator_loss: ``()``, with a gradient to the discriminator only.
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
        step: int,
    ) -> RealismOutput:
        """A training step's terms.

        Args:
            x: images ``(B, C, H, W)`` in [-1, 1].
            x_hat: their reconstructions, the likelihood's mean.
            distortion: ``-log p(x|z)``, ``(B,)`` nats.
            temperature: divisor of the likelihood's error, ``()``.
            last_layer: weight of the decoder's last layer, for the adaptive weight.
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
