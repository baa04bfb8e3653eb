"""Features of a split of real images, for comparison with generated ones; computed once and cached for all runs."""

import hashlib
import json
import os
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from callbacks.panel import Split
from lit_vae.features import ImageFeatures
from lit_vae.images import Batch, ImageSpec
from lit_vae.metrics import FeatureSet, FeatureStatistics
from lit_vae.ranks import RankPositions, all_agree, rank
from lit_vae.run.files import replacing
from lit_vae.run.needs import Measured, Need, of_contents

VERSION = 1
"""Version of the computations in this file. Raise it to ignore older files."""

UNREADY = "the images, or the weights of the features, are not there."


class ReferenceImages(Protocol):
    """The part of a data module that references need."""

    @property
    def spec(self) -> ImageSpec:
        """Description of the images."""

    def fingerprint(self, split: Split) -> str:
        """Hash of the contents of a split."""

    def source(self, split: Split) -> Sized:
        """The stored images of a split."""

    def ordered_dataloader(self, split: Split, share: bool = False) -> Iterable[Batch]:
        """All images of a split in order, on every rank; with ``share`` only this rank's part."""


class Reference(NamedTuple):
    """Reference features: moments of all images of a split, features of some, and their provenance."""

    features: FeatureSet
    provenance: dict[str, Any]


def reference_folder() -> Path:
    """``references`` in ``LIT_VAE_CACHE``, or in ``lit_vae`` in the user's cache."""
    cache = os.environ.get("LIT_VAE_CACHE")
    folder = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_vae"
    return folder / "references"


def reference_set(
    data: ReferenceImages, split: Split, features: ImageFeatures, kept: int, device: torch.device
) -> Reference:
    """The features of a split, from the cache or computed over all ranks. All ranks must call it together.

    The name of a cache file contains a hash of all that the features depend on: images, network, weights and `VERSION`.
    So a file serves all runs and never becomes outdated. The moments are of all images, without augmentation; ``kept``
    images, spread evenly over the split, have their features returned beside them.
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

    If they are missing, the run computes them.
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
        except (ValueError, OSError):  # the name depends on images and weights, which are missing
            return reference_folder()

    def problem(self) -> str | None:
        """See `Need`."""
        try:
            absent = [path for path in self._files() if _load(path, torch.device("cpu")) is None]
        except (ValueError, OSError):  # images and weights report their own problems
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
    """Provenance of the features of a split, and their files: moments and, with ``kept``, features."""
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
    """Content of a cache file; None if it is missing or cannot be read."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # unpickling a damaged file raises many kinds of error
        rank_zero_warn(f"reference statistics: {path} cannot be read ({error}); they are computed again.")
        return None


def _save(path: Path, content: dict[str, Tensor]) -> None:
    """Write a cache file; only warn on failure, since a full disk must not stop a measurement."""
    try:
        with replacing(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:
        rank_zero_warn(
            f"reference statistics: {path} cannot be written ({error}), so the next run computes them again. Set"
            " LIT_VAE_CACHE to a writable folder."
        )


def _compute(
    data: ReferenceImages, split: Split, features: ImageFeatures, kept: int, total: int, device: torch.device
) -> list[dict[str, Tensor]]:
    """Contents of the cache files: moments of all images and, with ``kept``, features of some."""
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
