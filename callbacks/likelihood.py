"""Importance-sampled bound of the likelihood of images."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from callbacks.periodic import Measurement, data_spec
from lit_vae.images import Batch, ImageSpec
from lit_vae.metrics import SplitMean
from lit_vae.models.abilities import HasBound
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import PositiveInt, checked

SEED = 2**31 - 19


class ImportanceSampledNLL(Measurement):
    """Logs ``test/nll_iw<k>``, an upper bound of ``-log p(x)`` in nats that tightens as k grows, and its bits/dim.

    Burda et al., "Importance Weighted Autoencoders", 2016, eq. 8. ``test/bits_per_dim_iw<k>`` is logged if the
    likelihood has bits per dimension for the data; neither is logged if it is not a probability (soft targets). An
    image has the same noise in every evaluation, for any number of ranks, batch size and ``chunk``.

    Args:
        num_samples: k, posterior samples per image.
        chunk: samples of each image that are decoded at once. Memory grows with it like with the batch size.
        every_n_epochs: see `Periodic`; null: in tests only.
        max_images: use only this many first images.
    """

    accepts = HasBound

    @checked
    def __init__(
        self,
        num_samples: PositiveInt = 128,
        chunk: PositiveInt = 16,
        every_n_epochs: PositiveInt | None = None,
        max_images: PositiveInt | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_samples, self.chunk, self.max_images = num_samples, chunk, max_images

    def numbers(self, model: HasBound, data: Any) -> list[str]:
        """Up to two, depending on the likelihood and the data."""
        if not model.likelihood.is_probability(data.spec):
            return []
        bits = model.likelihood.bits_per_dim(torch.zeros(()), data.spec)
        return [f"{name}_iw{self.num_samples}" for name in ("nll", *(["bits_per_dim"] if bits is not None else []))]

    def start(self, trainer: Trainer, model: HasBound) -> None:
        """Start a new mean, and the noise from the first image."""
        self._spec: ImageSpec | None = data_spec(trainer)
        self._meaningful = self._spec is None or model.likelihood.is_probability(self._spec)
        if not self._meaningful:
            rank_zero_info(
                f"{type(self).__name__}: the likelihood is not a probability of these images; no nll is logged."
            )
        self._bits = model.likelihood.bits_per_dim
        self._mean = SplitMean().to(model.device)

    def update(self, model: HasBound, batch: Batch) -> None:
        """Draw ``num_samples`` for each image."""
        if not self._meaningful:
            return
        indices = self.index
        if self.max_images is not None:
            indices = indices[indices < self.max_images]
        if not len(indices):
            return
        x, y = batch.x[: len(indices)], batch.y[: len(indices)]
        draws = Draws(SEED, FIXED, indices)
        nll = model.importance_weighted_nll(x, y, self.num_samples, self.chunk, draws)
        self._mean.update(nll, len(x), indices)

    def compute(self) -> dict[str, Tensor]:
        """Nats per image, and bits per dimension."""
        if not self._meaningful:
            return {}
        nll = self._mean.estimates()
        bits = None if self._spec is None else self._bits(nll, self._spec)
        name = f"iw{self.num_samples}"
        return {f"nll_{name}": nll} | ({} if bits is None else {f"bits_per_dim_{name}": bits})
