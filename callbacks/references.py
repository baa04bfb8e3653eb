"""What generated images are compared with: the features of a whole split, computed once and kept for all runs."""

import hashlib
import json
import os
from collections.abc import Sized
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from callbacks.panel import Images, Split
from lit_vae.features import ImageFeatures
from lit_vae.images import ImageSpec
from lit_vae.metrics import FeatureSet, FeatureStatistics
from lit_vae.ranks import RankPositions, all_agree, rank
from lit_vae.run.files import replacing
from lit_vae.run.needs import Measured, Need, of_contents

VERSION = 1
"""Of what this file makes of images and features: a higher one finds no older files."""

UNREADY = "the images, or the weights of the features, are not there."


class ReferenceImages(Images, Protocol):
    """The part of a data module that is compared with."""

    @property
    def spec(self) -> ImageSpec:
        """What the images are."""

    def fingerprint(self, split: Split) -> str:
        """What a split holds."""

    def source(self, split: Split) -> Sized:
        """The images of a split as they are stored."""


class Reference(NamedTuple):
    """Features of a split, moments of all its images and the features of some, and where they come from."""

    features: FeatureSet
    provenance: dict[str, Any]


def reference_folder() -> Path:
    """``LIT_VAE_CACHE``, or ``lit_vae`` in the user's cache, and in it ``references``."""
    cache = os.environ.get("LIT_VAE_CACHE")
    folder = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_vae"
    return folder / "references"


def reference_set(
    data: ReferenceImages, split: Split, features: ImageFeatures, kept: int, device: torch.device
) -> Reference:
    """The features of a split: from the cache, or computed over all ranks and put there. A collective.

    A file in the cache is named after everything that the features depend on: the images' fingerprint, the network and
    its weights, what this version makes of them. It is of no run, and never out of date.

    Args:
        data: whose images.
        split: which of them; the moments are of all, without augmentation.
        features: of an image.
        kept: how many images' own features are needed beside the moments; they are spread evenly over the split.
        device: where they are computed, and lie afterwards.
    """
    total = len(data.source(split))
    kept = min(kept, total)
    provenance, files = _named(data, split, features, kept)
    found = {path: part for path in files if (part := _load(path, device)) is not None}
    if not all_agree(len(found) == len(files), device):
        rank_zero_info(f"reference statistics: {features.name} of {type(data).__name__}, {split}; kept in {files[0]}")
        computed = dict(zip(files, _compute(data, split, features, kept, total, device), strict=True))
        for path, part in computed.items():
            if rank() == 0 and path not in found:
                _save(path, part)
        found = computed
    tensors = {name: value for part in found.values() for name, value in part.items()}
    reference = FeatureSet(total, tensors["mean"], tensors["covariance"], tensors.get("features"))
    return Reference(reference, {**provenance, "reference_images": total})


class ReferenceStatistics(Need):
    """The features of a split in the cache; see `reference_set` for the arguments.

    A run that misses them computes them by itself.
    """

    provides = "computed"
    blocks = False

    def __init__(self, data: ReferenceImages, split: Split, features: ImageFeatures, kept: int) -> None:
        self.data, self.split, self.features, self.kept = data, split, features, kept
        of_some = f", {kept} of them kept" if kept else ""
        self.what = f"{features.name} of {type(data).__name__} {split}{of_some}"

    @property
    def where(self) -> Path:
        """See `Need`."""
        try:
            return self._files()[0]
        except (ValueError, OSError):  # without the images or the weights there is no name
            return reference_folder()

    def problem(self) -> str | None:
        """See `Need`."""
        try:
            absent = [path for path in self._files() if _load(path, torch.device("cpu")) is None]
        except (ValueError, OSError):  # which say it themselves
            return UNREADY
        if not absent:
            return None
        return f"there is no {absent[0]}. The run computes it, or  lit-vae prepare CONFIG  does so before."

    def measure(self) -> Measured:
        """See `Need`."""
        return of_contents(self._files())

    def provide(self) -> None:
        """See `Need`."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._files()
        except (ValueError, OSError) as error:
            raise ValueError(UNREADY) from error
        reference_set(self.data, self.split, self.features.to(device), self.kept, device)

    def _files(self) -> list[Path]:
        kept = min(self.kept, len(self.data.source(self.split)))
        return _named(self.data, self.split, self.features, kept)[1]


def _named(
    data: ReferenceImages, split: Split, features: ImageFeatures, kept: int
) -> tuple[dict[str, Any], list[Path]]:
    """What the features of a split depend on, and the files of that name: moments and, of some images, features."""
    provenance = {
        "reference": f"{type(data).__name__} {split}",
        "reference_fingerprint": data.fingerprint(split),
        **features.provenance(),
    }
    key = hashlib.sha256(json.dumps({**provenance, "version": VERSION}, sort_keys=True).encode()).hexdigest()[:16]
    stem = reference_folder() / f"{type(data).__name__}-{split}-{features.name}-{key}"
    parts = ("moments", f"features-{kept}") if kept else ("moments",)
    return provenance, [stem.with_name(f"{stem.name}-{part}.pt") for part in parts]


def _load(path: Path, device: torch.device) -> dict[str, Tensor] | None:
    """What is in a file of the cache; nothing where there is none, or none that can be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # an unpickler stumbles over a file that is none in any way it likes
        rank_zero_warn(f"reference statistics: {path} cannot be read ({error}); they are computed again.")
        return None


def _save(path: Path, content: dict[str, Tensor]) -> None:
    """Keep it if that is possible: a measurement does not fail of a full disk."""
    try:
        with replacing(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:
        rank_zero_warn(
            f"reference statistics: {path} cannot be written ({error}), and the next run computes them again. Set"
            " LIT_VAE_CACHE to a folder that can be written to."
        )


def _compute(
    data: ReferenceImages, split: Split, features: ImageFeatures, kept: int, total: int, device: torch.device
) -> list[dict[str, Tensor]]:
    """Moments of all images, and with ``kept`` the features of some: as they are in the files."""
    moments = FeatureStatistics(features.num_features).to(device)
    some = FeatureStatistics(features.num_features, keep=True).to(device)
    for statistics in (moments, some):
        statistics.update_with_none()
    chosen = torch.zeros(total, dtype=torch.bool, device=device)
    if kept:
        chosen[torch.linspace(0, total - 1, kept, dtype=torch.float64).round().long()] = True
    share = RankPositions()
    with torch.no_grad():
        for batch in data.ordered_dataloader(split, share=True):
            found = features.of(batch.x.to(device), data.spec.values)
            moments.update(found)
            some.update(found[chosen[share.indices(len(found), device)]])
    whole = moments.compute()
    contents = [{"mean": whole.mean, "covariance": whole.covariance}]
    if kept:
        contents.append({"features": some.compute().features})  # type: ignore[dict-item]
    return contents
