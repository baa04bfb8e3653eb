"""A folder of latents: shards in safetensors, read by memory maps.

``latents.json`` describes it. ``train-00000.safetensors``, ``train-00001.safetensors``, ... hold the images of a split
in order, `LatentSummary.shard_size` in each: ``mean`` and ``log_var`` of the posteriors (``(n, *shape)`` float32) and
``labels`` (``(n,)`` int64, -1 for none). ``mean_mirrored`` and ``log_var_mirrored`` are those of the mirror images.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_vae.data.encoded_files import (
    WRITE,
    EncodedWriter,
    Manifest,
    check_labels,
    common_arguments,
    common_record,
    finite,
    read_description,
    require_positive,
    summary_of,
)
from lit_vae.images import Shape
from lit_vae.latents import LatentSpec
from lit_vae.noise import FIXED, FLIP, uniform

MANIFEST: Final = "latents.json"
MIRRORED: Final = "_mirrored"
_ORIGIN: Final = "origin"  # one key only: safetensors writes several in random order
_DIGITS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a split is laid out in files of ``shard_size`` images, of which the last has the rest.

    With ``mirrors``, the mirror images are encoded, too. ``images`` is the fingerprint of the images.
    """

    num_images: int
    shard_size: int
    mirrors: bool
    images: str


@dataclass(frozen=True, kw_only=True)
class LatentSummary(Layout):
    """What is known of a split: its layout, and statistics that count the mirror images.

    ``mean`` and ``std`` are those of each channel over all posterior draws. ``entropy`` is the mean of the posteriors
    in nats per image; None if the model has none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    entropy: float | None


LatentManifest: TypeAlias = Manifest[LatentSpec, LatentSummary]


class Posteriors(NamedTuple):
    """A stored batch: ``mean`` and ``log_var (B, *shape)``, labels ``y (B,)``, ``ids (B,)`` within the split."""

    mean: Tensor
    log_var: Tensor
    y: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Shard:
    """A file of a split.

    Args:
        path: of the file.
        rows: the images that it holds, by position in the split.
        shape: of a latent.
        mirrors: whether it holds mirror images.
        origin: the checkpoint and the images that it was made of; kept in the file.
    """

    path: Path
    rows: range
    shape: Shape
    mirrors: bool
    origin: str

    @property
    def sides(self) -> tuple[str, ...]:
        """What is appended to the names of tensors: nothing, and `MIRRORED` for the mirror images."""
        return ("", MIRRORED) if self.mirrors else ("",)

    @property
    def is_written(self) -> bool:
        """Whether the file is there, whole and made of the same things."""
        try:
            self.read()
        except (FileNotFoundError, ValueError):
            return False
        return True

    def write(self, tensors: dict[str, Tensor]) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: the disk is full.
        """
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, partial, {_ORIGIN: self.origin})
            partial.replace(self.path)
        except SafetensorError as error:
            raise OSError(f"{self.path} could not be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)

    def read(self) -> dict[str, Tensor]:
        """Its tensors, mapped into memory: only the rows that are used are read.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or was made of something else.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: the file is missing, but {MANIFEST} lists its split. {WRITE}")
        try:
            with safe_open(self.path, "pt") as file:
                found = (file.metadata() or {}).get(_ORIGIN, "an unknown model")
            tensors = load_file(self.path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.path}: not a complete file of latents ({error}). {WRITE}") from error
        if found != self.origin:
            raise ValueError(
                f"{self.path}: its latents are of {found}, but {MANIFEST} describes those of {self.origin}. {WRITE}"
            )
        has = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
        moments = [f"{name}{side}" for name in ("mean", "log_var") for side in self.sides]
        wanted = dict.fromkeys(moments, (torch.float32, (len(self.rows), *self.shape)))
        wanted["labels"] = (torch.int64, (len(self.rows),))
        if has != wanted:
            raise ValueError(f"{self.path}: contains {_text(has)}, expected {_text(wanted)}. {WRITE}")
        return tensors


def shards_of(root: Path, split: str, layout: Layout, shape: Shape, checkpoint_sha256: str) -> list[Shard]:
    """The files of a split, written or not."""
    origin = f"checkpoint {checkpoint_sha256[:_DIGITS]} and images {layout.images[:_DIGITS]}"
    images = range(layout.num_images)
    rows = [images[start : start + layout.shard_size] for start in range(0, layout.num_images, layout.shard_size)]
    return [
        Shard(root / f"{split}-{number:05}.safetensors", part, shape, layout.mirrors, origin)
        for number, part in enumerate(rows)
    ]


@dataclass(frozen=True)
class LatentFiles:
    """A split in files (see :class:`lit_vae.data.loader.Source`), of which only the requested rows are read.

    Args:
        shards: tensors of each file.
        shard_size: images in a file.
        mirrors: whether mirror images are there: in training, each visit then takes one of the two at random.
        seed: of that choice.
    """

    shards: tuple[dict[str, Tensor], ...]
    shard_size: int
    mirrors: bool
    seed: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> Tensor:
        """The label of each image."""
        return torch.cat([shard["labels"] for shard in self.shards])

    def classes(self) -> Tensor:
        """Return the label of each image."""
        return self.labels

    def read(self, indices: Tensor, epoch: int = FIXED) -> Posteriors:
        """Read the posteriors at ``indices (B,)``."""
        side = torch.zeros_like(indices)
        if self.mirrors and epoch != FIXED:
            side = (uniform(indices, 1, seed=self.seed, time=epoch, stream=FLIP)[:, 0] < 0.5).long()
        shape = self.shards[0]["mean"].shape[1:]
        mean, log_var = torch.empty(len(indices), *shape), torch.empty(len(indices), *shape)
        group = 2 * (indices // self.shard_size) + side
        order = group.argsort(stable=True)
        numbers, counts = group[order].unique_consecutive(return_counts=True)
        for number, places in zip(numbers.tolist(), order.split(counts.tolist()), strict=True):
            shard, suffix = self.shards[number // 2], MIRRORED if number % 2 else ""
            rows = indices[places] % self.shard_size
            mean[places] = shard[f"mean{suffix}"][rows]
            log_var[places] = shard[f"log_var{suffix}"][rows]
        return Posteriors(mean, log_var, self.labels[indices], indices)


class LatentWriter(EncodedWriter):
    """Gives a folder of files of latents its name once all are there. What a killed process wrote is kept till then."""

    def finish(self, manifest: LatentManifest, shards: Iterable[Shard]) -> None:
        """Remove files of other attempts, describe the folder, and give it its name."""
        for path in set(self.partial.iterdir()) - {shard.path for shard in shards}:
            path.unlink()
        self.complete(MANIFEST, _to_json(manifest))


def read_manifest(root: str | Path) -> LatentManifest:
    """Read the description of a folder of latents; see `read_description` for errors."""
    return read_description("Latents", root, MANIFEST, _from_json)


def open_split(root: str | Path, manifest: LatentManifest, split: str, seed: int = 0) -> LatentFiles:
    """Open a split; ``seed`` is that of the choice between an image and its mirror image.

    Raises:
        FileNotFoundError: the folder has no such split, or a file is missing.
        ValueError: the files do not fit the description.
    """
    summary, spec = summary_of("Latents", root, manifest.splits, split), manifest.spec
    tensors = []
    for shard in shards_of(Path(root), split, summary, spec.shape, spec.checkpoint_sha256):
        tensors.append(shard.read())
        check_labels(shard.path, tensors[-1]["labels"], spec.num_classes)
    return LatentFiles(tuple(tensors), summary.shard_size, summary.mirrors, seed)


def spec_of(splits: Mapping[str, LatentSummary], **known: Any) -> LatentSpec:
    """The description of a folder from its splits, and what is known beside them.

    Raises:
        ValueError: an entropy is not finite, or only some splits have one.
    """
    entropy = {name: split.entropy for name, split in splits.items() if split.entropy is not None}
    finite("an entropy", tuple(entropy.values()))
    if entropy and len(entropy) < len(splits):
        raise ValueError(f"all splits must have an entropy or none, but {' and '.join(entropy)} have one")
    return LatentSpec(mean=splits["train"].mean, std=splits["train"].std, entropy=entropy or None, **known)


def _to_json(manifest: LatentManifest) -> dict[str, Any]:
    return {
        **common_record(manifest.spec),
        "shape": manifest.spec.shape,
        "realism": manifest.spec.realism,
        "splits": {name: vars(split) for name, split in manifest.splits.items()},
    }


def _from_json(record: dict[str, Any]) -> LatentManifest:
    splits = {
        name: LatentSummary(
            num_images=int(split["num_images"]),
            shard_size=int(split["shard_size"]),
            mirrors=bool(split["mirrors"]),
            images=str(split["images"]),
            mean=finite("a mean", tuple(map(float, split["mean"]))),
            std=finite("a std", tuple(map(float, split["std"]))),
            entropy=None if split["entropy"] is None else float(split["entropy"]),
        )
        for name, split in record["splits"].items()
    }
    known = common_arguments(record)
    spec = spec_of(splits, shape=tuple(map(int, record["shape"])), realism=tuple(map(str, record["realism"])), **known)
    if len(spec.mean) != spec.shape[0] or len(spec.std) != spec.shape[0] or min(spec.std) <= 0.0:
        raise ValueError(f"mean and std must be numbers of {spec.shape[0]} channels, and std positive")
    require_positive(
        shape=min(spec.shape),
        num_images=min(split.num_images for split in splits.values()),
        shard_size=min(split.shard_size for split in splits.values()),
    )
    return Manifest(spec, splits)


def _text(tensors: Mapping[str, tuple[torch.dtype, Shape]]) -> str:
    kinds = (f"{name} {str(dtype).removeprefix('torch.')} {shape}" for name, (dtype, shape) in sorted(tensors.items()))
    return ", ".join(kinds) or "nothing"
