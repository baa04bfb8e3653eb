"""Penalties in the discriminator's loss: they keep it smooth, or from memorising a small data set."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.objectives.adversarial import in_float32
from lit_vae.ranges import BelowOne, PositiveFloat, PositiveInt, checked
from lit_vae.ranks import average_over_ranks


class Penalty(nn.Module, ABC):
    """A term of the discriminator's loss."""

    @abstractmethod
    def forward(self, discriminator: nn.Module, x: Tensor, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The weighted term, ``()``.

        Args:
            discriminator: the network, in training mode.
            x: images ``(B, C, H, W)``, without augmentation.
            real: logits of (augmented) images, ``(B, 1, h, w)``.
            fake: logits of (augmented) reconstructions.
            step: optimizer steps taken.
        """


class R1(Penalty):
    """``weight / 2 E |grad_x D(x)|^2``, D the mean of an image's logits (Mescheder et al. 2018, eq. 9).

    Args:
        weight: gamma.
        every: the term is computed once in ``every`` steps, with ``every`` times the weight (Karras et al. 2020,
            app. B), because it needs a second-order gradient.
    """

    @checked
    def __init__(self, weight: PositiveFloat = 10.0, every: PositiveInt = 16) -> None:
        super().__init__()
        self.weight, self.every = weight, every

    def forward(self, discriminator: nn.Module, x: Tensor, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The term ``()``; zero in the steps between."""
        if step % self.every:
            return real.new_zeros(())
        anchor = x.detach().requires_grad_()
        with torch.autocast(x.device.type, enabled=False):  # squares of small numbers
            logits = discriminator(anchor).flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(logits.sum(), anchor, create_graph=True)
        return self.every * self.weight / 2.0 * gradient.square().flatten(1).sum(1).mean()


class LeCAM(Penalty):
    """Keeps the logits of real and fake images close to each other: for small data sets (Tseng et al. 2021).

    ``weight (E relu(D(x) - a_F)^2 + E relu(a_R - D(x_hat))^2)``, where ``a_R`` and ``a_F`` are moving averages of the
    logits of real and fake images over all ranks.

    Args:
        weight: lambda.
        decay: decay of the moving averages.
    """

    averages: Tensor
    started: Tensor

    @checked
    def __init__(self, weight: PositiveFloat = 0.001, decay: BelowOne = 0.99) -> None:
        super().__init__()
        self.weight, self.decay = weight, decay
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, discriminator: nn.Module, x: Tensor, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The term ``()``, with averages that include this batch."""
        real, fake = in_float32(real), in_float32(fake)
        with torch.no_grad():
            means = average_over_ranks(torch.stack([real.mean(), fake.mean()]))
            moved = torch.lerp(self.averages, means, 1.0 - self.decay)
            self.averages.copy_(torch.where(self.started, moved, means))  # no bias towards zero
            self.started.fill_(True)
        average_real, average_fake = self.averages
        return self.weight * (F.relu(real - average_fake).square().mean() + F.relu(average_real - fake).square().mean())
