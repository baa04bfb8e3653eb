"""The density of a diffusion model at images, by its probability-flow ODE."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from callbacks.periodic import Measurement, data_spec
from lit_vae.diffusion import ProbabilityFlow, UniformLogSNR
from lit_vae.diffusion.log_snr import alpha
from lit_vae.images import Batch, ImageSpec, dequantize, levels
from lit_vae.metrics import SplitMean
from lit_vae.models.base import ImageModel
from lit_vae.models.denoising import DenoisingModel
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import PositiveInt, SmallCount, Steps, checked

SEED = 2**31 - 99
LEVEL = 1.0 / 127.5
"""Distance of two levels of an eight-bit image in [-1, 1]."""
NAMES = ("nll_ode", "bits_per_dim_ode")


class ODELikelihood(Measurement):
    """Logs ``test/nll_ode`` in nats per image and ``test/bits_per_dim_ode``, of eight-bit images.

    Each value is moved by uniform noise within its level, ``x + (U - 1/2) / 127.5``. This is ``(u + U) / 128 - 1`` in
    the units of the images that the network saw. The number is minus the log-density at this point, by
    `lit_vae.diffusion.ProbabilityFlow`, in units of levels: up to the error of the solver it bounds
    ``-log P(image)`` (Theis et al., "A note on the evaluation of generative models", 2016, sec. 3.1).

    It is another model than that of ``elbo``: the flow, and not the random chain. The network was trained on levels
    with Gaussian noise, not on values between them. With a high ``lam_max`` its density has peaks at the levels, and
    uniform noise misses them, so even a perfect network has more nats than the entropy of its images. Compare it with
    ODE likelihoods of papers, and only at equal ``lam_max``.

    An image has the same noise in every evaluation, for any number of ranks and batch size.

    Args:
        steps: nodes of a grid of equal steps of log-SNR. The network is called ``4 (steps - 1)`` times.
        probes: see `lit_vae.diffusion.ProbabilityFlow`; null: exact, for small images.
        max_images: use only this many first images.
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    accepts = DenoisingModel

    @checked
    def __init__(
        self,
        steps: Steps = 50,
        probes: SmallCount | None = 1,
        max_images: PositiveInt | None = None,
        every_n_epochs: PositiveInt | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.steps, self.max_images = steps, max_images
        self.flow = ProbabilityFlow(probes)
        self.protocols = {name: {"steps": steps, "probes": probes, "max_images": max_images} for name in NAMES}

    def check_model(self, model: DenoisingModel) -> None:
        """Only models of pixels."""
        if not isinstance(model, ImageModel):
            raise self._refuse(f"{type(model).__name__} is no model of pixels.", "Remove it from trainer.callbacks.")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Also refuse images that are not of eight bits."""
        super().setup(trainer, pl_module, stage)
        spec = data_spec(trainer)
        if stage != "predict" and spec is not None and spec.values != "uint8":
            raise self._refuse(
                f"a density needs eight-bit images, but data has values: {spec.values}.",
                "Remove callbacks.ODELikelihood from trainer.callbacks; `elbo` is the bound for these images.",
            )

    def numbers(self, model: DenoisingModel, data: Any) -> list[str]:
        """Both."""
        return list(NAMES)

    def start(self, trainer: Trainer, model: DenoisingModel) -> None:
        """Start a new mean."""
        assert isinstance(model, ImageModel)  # by `check_model`
        self._spec: ImageSpec | None = data_spec(trainer)
        self._bits = model.likelihood.bits_per_dim
        self._mean = SplitMean().to(model.device)
        self._dims = math.prod(model.diffused_shape)

    def update(self, model: DenoisingModel, batch: Batch) -> None:
        """Solve the ODE for each image."""
        chosen = self.index < (self.max_images or math.inf)
        if not chosen.any():
            return
        index = self.index[chosen]
        with torch.inference_mode(False):  # of a copy, the network's gradients can be taken
            x, y = batch.x[chosen].clone(), batch.y[chosen].clone()
            nll = self._nll(model, x, y, Draws(SEED, FIXED, index.clone()))
        self._mean.update(nll, len(nll), index)

    def compute(self) -> dict[str, Tensor]:
        """Nats per image, and bits per dimension."""
        nll = self._mean.estimates()
        bits = None if self._spec is None else self._bits(nll, self._spec)
        return {name: value for name, value in zip(NAMES, (nll, bits), strict=True) if value is not None}

    def _nll(self, model: DenoisingModel, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """Minus the log-density of images ``x (B, C, H, W)`` in units of levels, ``(B,)``."""
        noise = draws.uniform(tuple(x.shape[1:])).double()
        moved = dequantize(levels(x, "uint8").double(), noise) * 128.0 * LEVEL
        lams = UniformLogSNR()(model.diffusion.schedule, self.steps, model.device)
        signal = alpha(lams[-1])
        log_density = self.flow(model.denoise(y), signal * moved, lams, draws.next_normal)
        return -log_density - self._dims * torch.log(signal * LEVEL).to(log_density)
