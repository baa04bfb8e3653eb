"""Rate and distortion of images that a diffusion model sends progressively."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.panel import Split, posterior_of
from callbacks.periodic import Measurement, data_spec, untouched
from callbacks.references import ReferenceImages
from callbacks.stage1 import decoder_and_images, images_behind
from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.images import Batch
from lit_vae.metrics import SplitMean
from lit_vae.metrics.image_quality import mse_per_image, psnr_per_image
from lit_vae.models.denoising import DenoisingModel
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import AtLeastThree, PositiveInt, checked
from lit_vae.ranks import RankPositions
from lit_vae.run.needs import Need, needs_of

SEED = 2**31 - 119
DECIBELS = (14, 16, 18, 20, 22, 24, 26, 28, 30)


class Source(NamedTuple):
    """What is sent in the place of images, and what the receiver makes of it."""

    encode: Callable[[Tensor, Tensor, Draws], Tensor]
    """``(x, y, draws) -> (B, *diffused_shape)``."""

    decode: Callable[[Tensor, Tensor], Tensor]
    """``(expected z, y) -> images``."""


class RateDistortion(Measurement):
    """Logs ``test/rate_at_20db`` and so on: nats per image until a progressive code has a PSNR of 20 dB.

    A diffusion model is a progressive code (Ho et al. 2020, sec. 4.3). The sender gives states of ever higher log-SNR;
    the receiver shows the image that it expects. With infinitely many steps the cost up to a level is
    ``KL(q(z_1|x) || p(z_1)) + 1/2 int E|eps - eps_hat|^2 d lam``. A model of latents sends a draw from ``q(z|x)``, and
    the receiver decodes the latent that it expects.

    So models of pixels and of any latents are on one axis: what an image costs at equal distortion. Losses and rates of
    latents are not, since they depend on how precise the latents are. Stage 1 may have been trained with any loss; the
    numbers are no bound of log p(x). A PSNR that is not reached has no number.

    Args:
        decibels: PSNRs, means over images.
        num_levels: levels of the code, evenly spaced in log-SNR.
        max_images: use only this many first images. The network and the decoder see ``num_levels`` times as many.
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    accepts = DenoisingModel

    @checked
    def __init__(
        self,
        decibels: list[PositiveInt] | None = None,
        num_levels: AtLeastThree = 49,
        max_images: PositiveInt = 1000,
        every_n_epochs: PositiveInt | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.decibels = sorted(set(DECIBELS if decibels is None else decibels))
        self.num_levels, self.max_images = num_levels, max_images
        protocol = {"num_levels": num_levels, "max_images": max_images}
        self.protocols = {name: dict(protocol) for name in self._names}

    @property
    def _names(self) -> list[str]:
        return [f"rate_at_{number}db" for number in self.decibels]

    def numbers(self, model: DenoisingModel, data: Any) -> list[str]:
        """One for each PSNR."""
        return self._names

    def needs(self, data: Any) -> Iterable[Need]:
        """The images of stage 1."""
        images = images_behind(data)
        return [] if images is data else needs_of(images)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find stage 1 and its images."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            return
        self.images: ReferenceImages
        self.decoder, self.images = decoder_and_images(self, trainer)
        assert isinstance(pl_module, DenoisingModel)  # by `Periodic.setup`
        encode = _pixels if self.decoder is None else partial(_latents, self.decoder, data_spec(trainer))
        self.source = Source(encode, lambda x, y: pl_module.as_images(x, y, self.decoder).clamp(-1.0, 1.0))

    def start(self, trainer: Trainer, model: DenoisingModel) -> None:
        """Remember whose images are sent at the end."""
        self._model = model
        self._split: Split = "test" if trainer.testing else "val"

    def update(self, model: DenoisingModel, batch: Batch) -> None:
        """Do nothing: a data set of latents has no images."""

    def compute(self) -> dict[str, Tensor]:
        """The rates, interpolated between levels."""
        schedule, model = self._model.diffusion.schedule, self._model
        ends = (float(schedule.lam_min), float(schedule.lam_max))
        lams = torch.linspace(*ends, self.num_levels, dtype=torch.float64, device=model.device)
        mean = SplitMean((2, self.num_levels)).to(model.device)
        positions = RankPositions()
        with untouched(model):
            if self.decoder is not None:
                self.decoder.to(model.device)
            for batch in self.images.ordered_dataloader(self._split, share=True):
                index = positions.indices(len(batch.x), model.device)
                kept = int((index < self.max_images).sum())
                if not kept:
                    break
                x, y, index = batch.x[:kept].to(model.device), batch.y[:kept].to(model.device), index[:kept]
                mean.update(progressive(model, self.source, Batch(x, y), lams, Draws(SEED, FIXED, index)), kept, index)
        curves = mean.estimates()
        found = {name: _rate_at(curves, number) for name, number in zip(self._names, self.decibels, strict=True)}
        return {name: rates for name, rates in found.items() if rates[0].isfinite()}


def progressive(model: DenoisingModel, source: Source, batch: Batch, lams: Tensor, draws: Draws) -> Tensor:
    """Rates in nats and PSNRs in dB of each image, up to each of the rising levels ``(K,)``: ``(B, 2, K)`` float64."""
    x, y = batch
    z_0 = source.encode(x, y, draws.level(0)).to(model.dtype)
    network, prediction = model.network_for(y), model.diffusion.prediction
    losses, psnrs = [], []
    for number, lam in enumerate(lams.to(z_0)[:, None].expand(-1, len(x)), start=1):
        eps = draws.level(number).normal(1, tuple(z_0.shape[1:]))[0].to(z_0)
        z = per_image(alpha(lam), z_0) * z_0 + per_image(sigma(lam), z_0) * eps
        output = network(prediction.network_input(z, lam), lam)
        losses.append(0.5 * (eps - prediction.eps(z, output, lam)).double().square().flatten(1).sum(1))
        psnrs.append(psnr_per_image(mse_per_image(source.decode(prediction.x(z, output, lam), y), x)))
    rates = torch.cumulative_trapezoid(torch.stack(losses, 1), lams, dim=1)
    prior = model.diffusion.prior_loss(z_0).double()[:, None]
    return torch.stack([torch.cat([prior, prior + rates], 1), torch.stack(psnrs, 1)], 1)


def _pixels(x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    return x


def _latents(stage1: Any, spec: Any, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
    """A draw from each posterior, or the latent itself, as the network sees it."""
    x = x.to(stage1.dtype)
    q = posterior_of(stage1, Batch(x, y))
    return spec.scaled(stage1.embed(x, y) if q is None else q.rsample(1, draws)[0])


def _rate_at(curves: Tensor, decibels: float) -> Tensor:
    """The rate where the PSNR first is that high, ``(R, 2, K) -> (R,)``; NaN where it never is."""
    rates, psnrs = curves.unbind(1)
    reached = psnrs >= decibels
    after = reached.to(torch.uint8).argmax(1, keepdim=True)
    before = (after - 1).clamp(min=0)
    low, high = psnrs.gather(1, before), psnrs.gather(1, after)
    share = torch.where(high > low, (decibels - low) / (high - low), 1.0).clamp(0.0, 1.0)
    at = torch.lerp(rates.gather(1, before), rates.gather(1, after), share)[:, 0]
    return torch.where(reached.any(1), at, torch.nan)
