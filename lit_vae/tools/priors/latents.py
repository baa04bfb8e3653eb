"""The latents of the images of a run, which priors are fitted to."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from lit_vae.tools.runs import Split

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.base import Autoencoder


@dataclass(frozen=True)
class Latents:
    """Latents of images of a split, ``(N, d)`` float64, and their labels ``(N,)``, on the CPU, for each seed.

    If the model has a posterior, each image gives one *draw* from it. The density of draws is the aggregate posterior
    ``q(z)``: the decoder was trained on it, and it is the best prior of the ELBO (Hoffman and Johnson, "ELBO surgery",
    2016). Posterior means are narrower. In an unused dimension they collapse to a point, where the decoder has only
    seen noise. Ghosh et al. fit to ``E(x)``, the same thing for their deterministic encoders; Chadebec et al.,
    "Pythae", 2022, draw.

    ``num_images`` are spread over the split; None: all.
    """

    model: "Autoencoder"
    data: "ImageDataModule"
    split: Split
    num_images: int | None = None

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Latents and labels."""
        generator = Generator().manual_seed(seed)
        drawn = [q if isinstance(q, Tensor) else q.sample(generator) for q, _ in self._encoded]
        return torch.cat([z.flatten(1).double().cpu() for z in drawn]), torch.cat([y for _, y in self._encoded])

    @cached_property
    def _encoded(self) -> list[tuple[Any, Tensor]]:
        """The posterior, or the latent itself, and the labels of each batch."""
        from callbacks.panel import example_images
        from lit_vae.models.abilities import HasPosterior

        model = self.model
        total = len(self.data.source(self.split)) if self.num_images is None else self.num_images
        encode = model.encode if isinstance(model, HasPosterior) else model.embed
        return [(encode(x, y), y.cpu()) for x, y in example_images(self.data, total, model, self.split)]
