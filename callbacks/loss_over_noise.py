"""Where a diffusion model spends its nats."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from callbacks.denoising import LAM
from callbacks.drawing import new_figure, rasterize
from callbacks.panel import Images, Panel, example_images
from lit_vae.diffusion import NoiseLevels
from lit_vae.images import Batch
from lit_vae.models.denoising import DenoisingModel
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import AtLeastThree, PositiveInt, SmallCount, checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LossByLevel(NamedTuple):
    """``1/2 |eps - eps_hat|^2`` of N images at K noise levels, in nats per unit of log-SNR.

    Attributes:
        lams: levels from the schedule's lowest to its highest, evenly, ``(K,)``.
        losses: ``(K, N)``.
    """

    lams: Tensor
    losses: Tensor

    @property
    def diffusion(self) -> Tensor:
        """The area below the curve of each image, by the trapezoidal rule: its diffusion term in nats, ``(N,)``."""
        return torch.trapezoid(self.losses, self.lams, dim=0)


class LossOverNoise(Panel):
    """The loss of validation images, or of their latents, over the log-SNR: panel ``loss_over_noise``.

    The area below the curve is the diffusion term of the bound, whatever the model was trained on (Kingma et al.,
    "Variational Diffusion Models", 2021, eq. 18). Where the curve is high, images cost nats; a schedule or objective
    decides how much of the training is spent there. It calls the network ``num_images * num_levels`` times.

    Args:
        num_images: number of validation images.
        num_levels: points of the curve.
        every_n_epochs: see `Periodic`.
    """

    name = "loss_over_noise"
    accepts = DenoisingModel
    caption = f"Loss of validation images over the log-SNR {LAM}; the area below the curve is the diffusion term"

    @checked
    def __init__(
        self, num_images: SmallCount = 256, num_levels: AtLeastThree = 33, every_n_epochs: PositiveInt = 1
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.num_levels = num_images, num_levels

    def draw(self, model: DenoisingModel, images: Images) -> Image.Image:
        """A small figure."""
        return rasterize(self.figure(model, images))

    def figure(self, model: DenoisingModel, images: Images) -> "Figure":
        """The same as a matplotlib figure."""
        found = loss_by_level(model, example_images(images, self.num_images, model), self.num_levels)
        nats = found.diffusion
        error = float(nats.std(correction=0)) / len(nats) ** 0.5
        figure = new_figure(4.4, 2.8)
        axes = figure.add_subplot()
        lams, mean = found.lams.numpy(), found.losses.mean(1).numpy()
        axes.plot(lams, mean, color="tab:blue")
        axes.fill_between(lams, mean, color="tab:blue", alpha=0.15, linewidth=0)
        axes.set_title(f"area: {float(nats.mean()):.2f} \N{PLUS-MINUS SIGN} {error:.2f} nats per image", fontsize=10)
        axes.set_xlabel(f"log-SNR {LAM}, from noise to image")
        axes.set_ylabel(f"nats per unit of {LAM}")
        axes.set_xlim(lams[0], lams[-1])
        axes.set_ylim(0.0)
        axes.grid(alpha=0.2, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        return figure


def loss_by_level(model: DenoisingModel, batches: Iterable[Batch], num_levels: int) -> LossByLevel:
    """The loss of images at even log-SNRs, float64 on the CPU. An image's noise is its own at each level, and fixed."""
    schedule = model.diffusion.schedule
    lams = torch.linspace(float(schedule.lam_min), float(schedule.lam_max), num_levels, dtype=torch.float64)
    found: list[Tensor] = []
    done = 0
    for x, y in batches:
        draws = Draws(0, FIXED, torch.arange(done, done + len(x), device=x.device))
        network, done = model.network_for(y), done + len(x)
        of_batch = []
        for number, lam in enumerate(lams.to(x).unbind()):
            eps = draws.level(number).normal(1, tuple(x.shape[1:]))[0].to(x)
            levels = NoiseLevels(lam.expand(len(x)), torch.full_like(lam, 0.5))
            of_batch.append(model.diffusion.diffusion_loss(network, x, levels, eps))
        found.append(torch.stack(of_batch).double().cpu())
    return LossByLevel(lams, torch.cat(found, 1))
