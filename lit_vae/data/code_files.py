"""A folder of codes: written completely or not at all, read by memory maps.

``codes.json`` describes it (`Manifest`). Each split is a folder of ``level_0.npy``, ... (coarsest first;
``(N, h, w)``, the smallest of uint8, uint16 and int32 that holds K codes) and ``labels.npy`` (``(N,)`` int64, -1 for
none).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lit_vae.codes import CodeBatch, CodeSpec, code_statistics, count_codes
from lit_vae.data.encoded_files import (
    WRITE,
    EncodedWriter,
    Manifest,
    check_labels,
    check_range,
    common_arguments,
    common_record,
    finite,
    read_description,
    require_positive,
    summary_of,
)
from lit_vae.images import Shape
from lit_vae.noise import FIXED

MANIFEST: Final = "codes.json"


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of a split: mean ``distortion`` of its images in nats; perplexity and code usage by level."""

    num_images: int
    distortion: float
    perplexity: tuple[float, ...]
    code_usage: tuple[float, ...]


CodeManifest: TypeAlias = Manifest[CodeSpec, SplitSummary]


@dataclass(frozen=True)
class CodeFiles:
    """A split in files (see :class:`lit_vae.data.loader.Source`), of which only the requested rows are read."""

    levels: tuple[np.ndarray, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def classes(self) -> Tensor:
        """Return the label of each image."""
        return torch.from_numpy(np.array(self.labels))

    def read(self, indices: Tensor, epoch: int = FIXED) -> CodeBatch:
        """Read the codes at ``indices (B,)``."""
        rows = indices.numpy()
        return CodeBatch(tuple(_read_rows(level, rows) for level in self.levels), _read_rows(self.labels, rows))


class CodeWriter(EncodedWriter):
    """Writes a folder of codes, batch by batch. The folder gets its name when it is complete.

    ::

        with CodeWriter("codes", spec) as writer:
            writer.write("train", 60_000, batches)

    The ``distortion`` of the spec is measured here.
    """

    def __init__(self, root: str | Path, spec: CodeSpec) -> None:
        super().__init__(root)
        self.spec = spec
        self._splits: dict[str, SplitSummary] = {}

    def __enter__(self) -> "CodeWriter":
        self.discard()  # of a run that was killed
        self.partial.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                distortion = {name: split.distortion for name, split in self._splits.items()}
                self.complete(MANIFEST, _to_json(Manifest(replace(self.spec, distortion=distortion), self._splits)))
        finally:
            self.discard()

    def write(self, split: str, num_images: int, batches: Iterable[tuple[CodeBatch, Tensor]]) -> None:
        """Write a split: batches of codes, each with the distortion ``(B,)`` of its images in nats.

        Raises:
            ValueError: the codes do not fit the spec, the number of images is wrong, or a distortion is not finite.
        """
        if num_images < 1:
            raise ValueError(
                f"CodeWriter: num_images (={num_images}) of {split} must be positive. Leave the split out."
            )
        folder, spec = self.partial / split, self.spec
        folder.mkdir()
        sizes = list(zip(spec.grids, spec.num_embeddings, strict=True))
        levels = [
            np.lib.format.open_memmap(folder / _level(i), "w+", code_dtype(k), (num_images, *grid))
            for i, (grid, k) in enumerate(sizes)
        ]
        labels = np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int64, (num_images,))
        counts = [torch.zeros(k, dtype=torch.int64) for _, k in sizes]
        total, start = 0.0, 0
        for (codes, y), distortion in batches:
            rows = slice(start, start + len(y))
            start = rows.stop
            shapes, expected = [tuple(level.shape) for level in codes], [(len(y), *grid) for grid in spec.grids]
            if shapes != expected:
                raise ValueError(
                    f"CodeWriter: codes of shapes {shapes} must be of shapes {expected}. Check spec.grids."
                )
            if start > num_images:
                break
            for level, file, count, k in zip(codes, levels, counts, spec.num_embeddings, strict=True):
                on_cpu = level.cpu()
                count.add_(count_codes(on_cpu, k))
                file[rows] = on_cpu.numpy()
            labels[rows] = y.cpu().numpy()
            total += float(distortion.double().sum())
        if start != num_images:
            came = "more came" if start > num_images else f"{start} came"
            raise ValueError(
                f"CodeWriter: num_images (={num_images}) must be the number of {split} images, but {came}. Count again."
            )
        if not math.isfinite(total):
            raise ValueError(f"CodeWriter: distortion (={total}) of {split} must be finite. The model has diverged.")
        for file in (*levels, labels):
            file.flush()
        by_level = [(float(level.perplexity), float(level.usage)) for level in map(code_statistics, counts)]
        self._splits[split] = SplitSummary(num_images, total / num_images, *zip(*by_level, strict=True))


def code_dtype(num_embeddings: int) -> np.dtype:
    """The smallest of uint8, uint16 and int32 that holds ``0 .. K - 1``."""
    return np.dtype(np.uint8 if num_embeddings <= 1 << 8 else np.uint16 if num_embeddings <= 1 << 16 else np.int32)


def read_manifest(root: str | Path) -> CodeManifest:
    """Read the description of a folder of codes; see `read_description` for errors."""
    return read_description("Codes", root, MANIFEST, _from_json)


def open_split(root: str | Path, manifest: CodeManifest, split: str) -> CodeFiles:
    """Open a split, and check that all its codes are in range.

    Raises:
        FileNotFoundError: the folder has no such split.
        ValueError: the files do not fit the description.
    """
    n = summary_of("Codes", root, manifest.splits, split).num_images
    folder, spec = Path(root) / split, manifest.spec
    levels = []
    for i, (grid, k) in enumerate(zip(spec.grids, spec.num_embeddings, strict=True)):
        levels.append(_open(folder / _level(i), code_dtype(k), (n, *grid)))
        check_range(folder / _level(i), levels[-1], 0, k - 1, f"num_embeddings (={k})")
    labels = _open(folder / "labels.npy", np.dtype(np.int64), (n,))
    check_labels(folder / "labels.npy", labels, spec.num_classes)
    return CodeFiles(tuple(levels), labels)


def _open(path: Path, dtype: np.dtype, shape: Shape) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the file is missing, but {MANIFEST} lists its split. {WRITE}")
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a complete array ({error}). {WRITE}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: not one array, but an archive of arrays. {WRITE}")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path}: contains {array.dtype} {array.shape}, expected {dtype} {shape}. {WRITE}")
    return array


def _read_rows(array: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array[rows]).astype(np.int64))


def _level(index: int) -> str:
    return f"level_{index}.npy"


def _to_json(manifest: CodeManifest) -> dict[str, Any]:
    spec = manifest.spec
    return {
        **common_record(spec),
        "grids": spec.grids,
        "num_embeddings": spec.num_embeddings,
        "splits": {name: vars(split) for name, split in manifest.splits.items()},
    }


def _from_json(record: dict[str, Any]) -> CodeManifest:
    splits = {
        name: SplitSummary(
            int(split["num_images"]),
            float(split["distortion"]),
            tuple(map(float, split["perplexity"])),
            tuple(map(float, split["code_usage"])),
        )
        for name, split in record["splits"].items()
    }
    distortion = {name: split.distortion for name, split in splits.items()}
    finite("a distortion", tuple(distortion.values()))
    spec = CodeSpec(
        **common_arguments(record),
        grids=tuple((int(height), int(width)) for height, width in record["grids"]),
        num_embeddings=tuple(map(int, record["num_embeddings"])),
        distortion=distortion,
    )
    per_level = [spec.num_embeddings, *(values for s in splits.values() for values in (s.perplexity, s.code_usage))]
    if not spec.grids or any(len(values) != len(spec.grids) for values in per_level):
        raise ValueError(f"not the same number of levels everywhere, as there are grids (={list(spec.grids)})")
    images = (split.num_images for split in splits.values())
    require_positive(num_embeddings=min(spec.num_embeddings), num_images=min(images, default=1))
    return Manifest(spec, splits)
