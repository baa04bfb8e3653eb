"""The latents of a trained model, as a data set for a prior such as a diffusion model."""

from functools import cached_property

import torch
from torch import Tensor

from lit_vae.data.encoded_module import EncodedDataModule
from lit_vae.data.latent_files import LatentFiles, LatentManifest, Posteriors, open_split, read_manifest
from lit_vae.data.loader import Loader, Source
from lit_vae.data.orders import FixedOrder, Order
from lit_vae.latents import LatentBatch, LatentSpec
from lit_vae.noise import STORED, Draws
from lit_vae.ranges import PositiveInt, Seed, checked


class LatentLoader(Loader[Posteriors, LatentBatch]):
    """Batches of latents, drawn from their posteriors on ``device``."""

    def __init__(
        self,
        source: Source[Posteriors],
        order: Order,
        spec: LatentSpec,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(source, order, device)
        self.spec, self.seed = spec, seed

    def make(self, stored: Posteriors, epoch: int) -> LatentBatch:
        """Draw ``z ~ q(z | x)`` and scale it."""
        mean, log_var, y, ids = (t.to(self.device, non_blocking=True) for t in stored)
        (eps,) = Draws(self.seed, epoch, ids, STORED).normal(1, self.spec.shape)
        return LatentBatch(self.spec.scaled(mean + torch.exp(0.5 * log_var) * eps), y)


class Latents(EncodedDataModule[Posteriors, LatentBatch]):
    """Latents that ``lit-vae encode RUN --out DIR`` wrote, in batches of :class:`lit_vae.latents.LatentBatch`.

    An image gives a new draw from its posterior in each epoch of training, and always the same in evaluation. Where
    mirror images were encoded, training takes the image or its mirror image at random. Both choices are a function of
    seed, epoch and image. Each channel is scaled to mean 0 and variance 1 over the training set
    (:meth:`lit_vae.latents.LatentSpec.unscaled` is the inverse).

    Shuffling, sharding and resuming are those of images (:class:`~lit_vae.data.splits.SplitDataModule`).

    Args:
        root: the folder.
        batch_size: images in a batch of one process.
        seed: of the shuffling, the draws and the mirrors.
    """

    what = "latents"

    @checked
    def __init__(self, root: str, batch_size: PositiveInt = 64, seed: Seed = 0) -> None:
        super().__init__(root, batch_size, seed)
        self.save_hyperparameters()

    @cached_property
    def manifest(self) -> LatentManifest:
        """The description in the folder."""
        return read_manifest(self.root)

    def open_split(self, split: str) -> LatentFiles:
        """See `EncodedDataModule`."""
        return open_split(self.root, self.manifest, split, self.seed)

    def make_loader(self, source: Source[Posteriors], order: Order, training: bool) -> LatentLoader:
        """Return the loader of a split, on the trainer's device."""
        return LatentLoader(source, order, self.spec, self.seed, self._device())

    def make_example(self, source: Source[Posteriors], indices: Tensor) -> LatentBatch:
        """Return the latents at ``indices`` as in evaluation, on the CPU."""
        (batch,) = LatentLoader(source, FixedOrder([indices]), self.spec, self.seed)
        return batch
