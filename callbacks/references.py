"""What generated images are compared with: the features of a whole split, computed once and kept for all runs."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info

from callbacks.panel import Images, Split
from lit_vae.features import ImageFeatures
from lit_vae.images import ImageSpec, levels
from lit_vae.metrics import FeatureSet, FeatureStatistics
from lit_vae.ranks import all_agree, rank
from lit_vae.run.files import replacing


class ReferenceImages(Images, Protocol):
    """The part of a data module that is compared with."""

    @property
    def spec(self) -> ImageSpec:
        """What the images are."""

    def fingerprint(self, split: Split) -> str:
        """What a split holds."""


class Reference(NamedTuple):
    """Features of all images of a split, and where they come from."""

    features: FeatureSet
    provenance: dict[str, Any]


def reference_folder() -> Path:
    """``LIT_VAE_CACHE``, or ``lit_vae`` in the user's cache, and in it ``references``."""
    cache = os.environ.get("LIT_VAE_CACHE")
    folder = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_vae"
    return folder / "references"


def reference_set(
    data: ReferenceImages, split: Split, features: ImageFeatures, keep: bool, device: torch.device
) -> Reference:
    """The features of a split: from the cache, or computed over all ranks and put there. A collective.

    A file in the cache is named after everything that the features depend on: the images' fingerprint, the network and
    its weights. It is of no run, and never out of date.

    Args:
        data: whose images.
        split: which of them; all are taken, without augmentation.
        features: of an image.
        keep: whether the features themselves are needed, beside their moments.
        device: where they are computed, and lie afterwards.
    """
    provenance = {
        "reference": f"{type(data).__name__} {split}",
        "reference_fingerprint": data.fingerprint(split),
        **features.provenance(),
    }
    key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]
    path = reference_folder() / f"{type(data).__name__}-{split}-{features.name}-{key}.pt"
    found = _load(path, keep, device)
    if not all_agree(found is not None, device):
        rank_zero_info(f"reference statistics: {features.name} of {type(data).__name__}, {split}; kept in {path}")
        found = _compute(data, split, features, keep, device)
        if rank() == 0:
            with replacing(path) as partial:
                torch.save({**found._asdict(), "provenance": provenance}, partial)
    assert found is not None
    return Reference(found, {**provenance, "reference_images": found.num_images})


def _load(path: Path, keep: bool, device: torch.device) -> FeatureSet | None:
    """What is in the cache, unless the features are wanted and only their moments are there."""
    if not path.is_file():
        return None
    saved = torch.load(path, map_location=device, weights_only=True)
    found = FeatureSet(*(saved[name] for name in FeatureSet._fields))
    if keep:
        return found if found.features is not None else None
    return found._replace(features=None)  # the same form of the distance, whoever came first


def _compute(
    data: ReferenceImages, split: Split, features: ImageFeatures, keep: bool, device: torch.device
) -> FeatureSet:
    statistics = FeatureStatistics(features.num_features, keep).to(device)
    with torch.no_grad():
        for batch in data.ordered_dataloader(split, share=True):
            statistics.update(features(levels(batch.x.to(device), data.spec.values)))
    return statistics.compute()
