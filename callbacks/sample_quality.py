"""Distances between samples and real images: FID, KID, precision and recall."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Generator, Tensor

from callbacks.draws import draw_images
from callbacks.panel import Split
from callbacks.periodic import Periodic, untouched
from callbacks.references import Reference, ReferenceImages, ReferenceStatistics, reference_set
from callbacks.stage1 import decoder_and_images, images_behind
from lit_vae.features import ImageFeatures
from lit_vae.images import ImageSpec, Shape
from lit_vae.metrics import FeatureSet, FeatureStatistics, Frechet, SetDistance
from lit_vae.models.abilities import SecondStage
from lit_vae.models.base import ImageModel
from lit_vae.models.module import Model
from lit_vae.ranges import AtLeastTwo, PositiveInt, Seed, checked
from lit_vae.ranks import rank, world_size
from lit_vae.run.needs import Need, needs_of

AT_ONCE, PIXELS_AT_ONCE = 100, 100 * 64 * 64
"""Largest chunk of images and of pixels. Each chunk has its own seed, so samples do not depend on the ranks."""


class SampleQuality(Periodic):
    """Logs distances between samples and real images: ``{val,test}/fid`` and others, named after their features.

    Samples are decoder means at draws from the prior at temperature 1, draws of a `PixelCNN`, or codes of a `CodePrior`
    decoded by its stage 1; with labels, each class in turn. They use the weights of the validation (with `EMA` the
    average) and do not depend on the number of ranks.

    The real images are those of a split. The Fréchet distance uses all of them; distances between single images use as
    many as there are samples, spread evenly. Their features are computed once and cached (`callbacks.references`). With
    `lit_vae.features.Inception` the numbers are FID, KID and so on; see `lit_vae.metrics.set_distances`. The protocol
    of each number and its seconds are saved with it.

    Args:
        features: features of an image, from `lit_vae.features`.
        distances: distances to measure; null: only `lit_vae.metrics.Frechet`.
        num_images: samples in a test. The Fréchet distance falls with it: compare equal numbers.
        reference: split of the real images: ``train``, ``val`` or ``test``. Most published FIDs use the whole training
            set; here validation images may be held out of it. The number of images is recorded.
        every_n_epochs: see `Periodic`; null: in tests only, since thousands of images take long.
        num_val_images: samples at a validation; null: as many as in a test.
        seed: seed of the samples.
    """

    accepts = Model

    @checked
    def __init__(
        self,
        features: ImageFeatures,
        distances: list[SetDistance] | None = None,
        num_images: AtLeastTwo = 10_000,
        reference: Split = "train",
        every_n_epochs: PositiveInt | None = None,
        num_val_images: AtLeastTwo | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_val_images = num_images if num_val_images is None else num_val_images
        self.features, self.num_images, self.reference, self.seed = features, num_images, reference, seed
        self.distances: Sequence[SetDistance] = [Frechet()] if distances is None else distances
        if len({type(distance) for distance in self.distances}) < len(self.distances):
            raise self._refuse("distances has one of them twice, under the same name.", "Set init_args.distances.")
        if problems := [p for d in self.distances for p in d.problems(min(num_images, self.num_val_images))]:
            raise self._refuse("\n".join(problems), "Set init_args.num_images.")
        self.decoder: Model | None = None
        self.images: ReferenceImages | None = None

    def needs(self, data: Any) -> Iterable[Need]:
        """Files of the features, the real images, and the features of the real images."""
        yield from self.features.needs()
        images = images_behind(data)
        if images is not data:
            yield from needs_of(images)
        if not hasattr(images, "fingerprint"):  # `setup` refuses them
            return
        counts = {self.num_images} | ({self.num_val_images} if self.every_n_epochs is not None else set())
        keep = any(distance.needs_features for distance in self.distances)
        for kept in sorted(counts) if keep else [0]:
            yield ReferenceStatistics(images, self.reference, self.features, kept)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the real images (of stage 1 for a prior of codes or latents); refuse what cannot be measured."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            return
        self.decoder, self.images = decoder_and_images(self, trainer)
        assert self.images is not None
        problems = self.features.problems(self.images.spec.shape)
        problems += [
            p for distance in self.distances for p in distance.problems(len(self.images.source(self.reference)))
        ]
        if problems:
            raise self._refuse("\n".join(problems), "Or remove it from trainer.callbacks.")

    def numbers(self, model: Model, data: Any) -> list[str]:
        """The names of its distances."""
        return [self.features.called(kind) for distance in self.distances for kind in distance.kinds]

    def check_model(self, model: Model) -> None:
        """Only models that draw images."""
        if not isinstance(model, (ImageModel, SecondStage)):
            raise self._refuse(f"{type(model).__name__} draws no images.", "Remove it from trainer.callbacks.")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``val/<name>``."""
        if self.due(trainer):
            self._measure(pl_module, "val", self.num_val_images)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``test/<name>``."""
        self._measure(pl_module, "test", self.num_images)

    def _measure(self, model: LightningModule, split: str, num_images: int) -> None:
        assert isinstance(model, Model)  # by `Periodic.setup`
        assert self.images is not None
        with untouched(model):
            y = model.labels_for(num_images, None)
            real = real_set(self.images, self.reference, self.features, self.distances, y)
            numbers, self.protocols = measure_samples(
                lambda y, seed: draw_images(model, y, seed, self.decoder),
                y,
                real,
                self.images.spec,
                self.features,
                self.distances,
                self.seed,
            )
        values = {f"{split}/{name}": value.float() for name, value in numbers.items()}
        # the values are equal on all ranks; sync_dist only avoids Lightning's warning
        model.log_dict(values, sync_dist=True)
        seconds = next(iter(self.protocols.values()))["seconds"]
        rank_zero_info(f"{', '.join(values)}: {num_images} samples in {seconds:.1f} s")


def real_set(
    images: ReferenceImages, split: Split, features: ImageFeatures, distances: Sequence[SetDistance], y: Tensor
) -> Reference:
    """What these distances need of a split of real images, to compare it with one sample for each label ``y (N,)``.

    All ranks must call it together. It moves the features to the device of the labels.
    """
    keep = any(distance.needs_features for distance in distances)
    return reference_set(images, split, features.to(y.device), len(y) if keep else 0, y.device)


def measure_samples(
    draw: Callable[[Tensor, int], Tensor],
    y: Tensor,
    real: Reference,
    spec: ImageSpec,
    features: ImageFeatures,
    distances: Sequence[SetDistance],
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Distances between samples and real images, and their protocols, by name. All ranks must call it together.

    ``draw``: ``(labels (n,), seed) -> images (n, C, H, W)`` in [-1, 1]. ``y`` has a label for each sample, ``(N,)``, on
    the device to use. ``real`` is from `real_set`, for the same features, distances and labels, and ``spec`` is that of
    its images.
    """
    started = time.monotonic()
    keep = any(distance.needs_features for distance in distances)
    fake = sample_set(draw, y, features, keep, spec, seed)
    protocol = {
        "num_images": fake.num_images,
        "seed": seed,
        "labels": "each class in turn" if int(y.max()) >= 0 else "none",
        **real.provenance,
        "seconds": round(time.monotonic() - started, 1),
    }
    numbers: dict[str, Tensor] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for distance in distances:
        for kind, value in distance(real.features, fake).items():
            numbers[features.called(kind)] = value
            protocols[features.called(kind)] = {**protocol, **_own_protocol(distance, real.features)}
    return numbers, protocols


def _own_protocol(distance: SetDistance, real: FeatureSet) -> dict[str, Any]:
    """A distance's part of the protocol: its settings, and its number of reference images."""
    if not distance.needs_features or real.features is None:
        return vars(distance)
    return {**vars(distance), "reference_images": len(real.features)}


def at_once(shape: Shape) -> int:
    """Number of images of this shape per chunk."""
    return max(1, min(AT_ONCE, PIXELS_AT_ONCE // math.prod(shape[1:])))


@torch.no_grad()
def sample_set(
    draw: Callable[[Tensor, int], Tensor],
    y: Tensor,
    features: ImageFeatures,
    keep: bool,
    spec: ImageSpec,
    seed: int,
) -> FeatureSet:
    """Features of one sample per label; see `measure_samples`. Every rank draws its part."""
    # with fewer samples than dimensions, the features are a smaller problem than their covariance
    statistics = FeatureStatistics(features.num_features, keep or len(y) < features.num_features).to(y.device)
    statistics.update_with_none()
    chunks = y.split(at_once(spec.shape))
    seeds = torch.randint(2**31, (len(chunks),), generator=Generator().manual_seed(seed)).tolist()
    for index, (labels, own_seed) in enumerate(zip(chunks, seeds, strict=True)):
        if index % world_size() == rank():
            statistics.update(features.of(draw(labels, own_seed), spec.values))
    return statistics.compute()
