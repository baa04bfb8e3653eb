"""A folder of codes: written completely or not at all, read by memory maps.

``codes.json`` describes it (`Manifest`). Each split is a folder of ``level_0.npy``, ... (coarsest first;
``(N, h, w)``, the smallest of uint8, uint16 and int32 that holds K codes) and ``labels.npy`` (``(N,)`` int64, -1 for
none).
"""

import json
import math
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lit_vae.codes import CodeBatch, CodeSpec, code_statistics, count_codes
from lit_vae.images import Shape
from lit_vae.noise import FIXED

FORMAT: Final = 1
MANIFEST: Final = "codes.json"
_WRITE: Final = "Write it with: lit-vae encode RUN --out DIR."


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of a split: mean ``distortion`` of its images in nats; perplexity and code usage by level."""

    num_images: int
    distortion: float
    perplexity: tuple[float, ...]
    code_usage: tuple[float, ...]


@dataclass(frozen=True)
class Manifest:
    """The description of a folder of codes.

    Args:
        spec: what a prior needs to know.
        splits: by name.
        image_shape: ``(C, H, W)`` of the images that were encoded.
        model: class path of the model that encoded them.
    """

    spec: CodeSpec
    splits: dict[str, SplitSummary]
    image_shape: Shape
    model: str


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


class CodeWriter:
    """Writes a folder of codes, batch by batch. The folder gets its name when it is complete.

    ::

        with CodeWriter("codes", spec, (1, 28, 28), "lit_vae.models.VQVAE") as writer:
            writer.write("train", 60_000, batches)

    Args:
        root: the folder; must not exist.
        spec: of the codes; its ``distortion`` is measured here.
        image_shape: see `Manifest`.
        model: see `Manifest`.

    Raises:
        ValueError: the folder exists.
    """

    def __init__(self, root: str | Path, spec: CodeSpec, image_shape: Shape, model: str) -> None:
        self.root, self.spec, self.image_shape, self.model = Path(root), spec, image_shape, model
        if self.root.exists():
            raise ValueError(
                f"CodeWriter: root (={str(root)!r}) must not exist yet. Remove it or choose another --out."
            )
        self._partial = self.root.with_name(f"{self.root.name}.partial")
        self._splits: dict[str, SplitSummary] = {}

    def __enter__(self) -> "CodeWriter":
        shutil.rmtree(self._partial, ignore_errors=True)  # of a run that was killed
        self._partial.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                distortion = {name: split.distortion for name, split in self._splits.items()}
                spec = replace(self.spec, distortion=distortion)
                manifest = Manifest(spec, self._splits, self.image_shape, self.model)
                (self._partial / MANIFEST).write_text(json.dumps(_to_json(manifest), indent=2) + "\n")
                os.rename(self._partial, self.root)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def write(self, split: str, num_images: int, batches: Iterable[tuple[CodeBatch, Tensor]]) -> None:
        """Write a split: batches of codes, each with the distortion ``(B,)`` of its images in nats.

        Raises:
            ValueError: the codes do not fit the spec, the number of images is wrong, or a distortion is not finite.
        """
        if num_images < 1:
            raise ValueError(
                f"CodeWriter: num_images (={num_images}) of {split} must be positive. Leave the split out."
            )
        folder, spec = self._partial / split, self.spec
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


def read_manifest(root: str | Path) -> Manifest:
    """Read the description of a folder of codes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has another format, or is damaged.
    """
    path = Path(root) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"Codes: root (={str(root)!r}) contains no {MANIFEST}. {_WRITE} Or change data.init_args.root."
        )
    try:
        record = json.loads(path.read_text())
        found = record["format"]
        manifest = _from_json(record) if found == FORMAT else None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: not a complete description of codes ({error!r}). {_WRITE}") from error
    if manifest is None:
        raise ValueError(f"{path}: format (={found!r}) must be {FORMAT}; another version of lit_vae wrote it. {_WRITE}")
    return manifest


def open_split(root: str | Path, manifest: Manifest, split: str) -> CodeFiles:
    """Open a split, and check that all its codes are in range.

    Raises:
        FileNotFoundError: the folder has no such split.
        ValueError: the files do not fit the description.
    """
    if split not in manifest.splits:
        has = ", ".join(manifest.splits) or "nothing"
        raise FileNotFoundError(
            f"Codes: root (={str(root)!r}) must contain the split {split}, but contains {has}. {_WRITE}"
        )
    folder, spec, n = Path(root) / split, manifest.spec, manifest.splits[split].num_images
    levels = []
    for i, (grid, k) in enumerate(zip(spec.grids, spec.num_embeddings, strict=True)):
        levels.append(_open(folder / _level(i), code_dtype(k), (n, *grid)))
        _check_range(folder / _level(i), levels[-1], 0, k - 1, f"num_embeddings (={k})")
    labels = _open(folder / "labels.npy", np.dtype(np.int64), (n,))
    lowest = 0 if spec.num_classes else -1
    _check_range(folder / "labels.npy", labels, lowest, spec.num_classes - 1, f"num_classes (={spec.num_classes})")
    return CodeFiles(tuple(levels), labels)


def _open(path: Path, dtype: np.dtype, shape: Shape) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the file is missing, but {MANIFEST} lists its split. {_WRITE}")
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a complete array ({error}). {_WRITE}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path}: not one array, but an archive of arrays. {_WRITE}")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path}: contains {array.dtype} {array.shape}, expected {dtype} {shape}. {_WRITE}")
    return array


def _check_range(path: Path, array: np.ndarray, low: int, high: int, because: str) -> None:
    found = int(array.min()), int(array.max())
    if found[0] < low or found[1] > high:
        raise ValueError(
            f"{path}: values (={found[0]} to {found[1]}) must be between {low} and {high}: {because}. {_WRITE}"
        )


def _read_rows(array: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array[rows]).astype(np.int64))


def _level(index: int) -> str:
    return f"level_{index}.npy"


def _to_json(manifest: Manifest) -> dict[str, Any]:
    spec, bits = manifest.spec, manifest.spec.bits_per_dim
    return {
        "format": FORMAT,
        "checkpoint": {"path": spec.checkpoint, "sha256": spec.checkpoint_sha256},
        "grids": spec.grids,
        "num_embeddings": spec.num_embeddings,
        "num_classes": spec.num_classes,
        "class_names": spec.class_names,
        "splits": {name: vars(split) for name, split in manifest.splits.items()},
        "bits_per_dim": None if bits is None else {"dims": bits[0], "offset": bits[1]},
        "image_shape": manifest.image_shape,
        "model": manifest.model,
    }


def _from_json(record: dict[str, Any]) -> Manifest:
    splits = {
        name: SplitSummary(
            int(split["num_images"]),
            float(split["distortion"]),
            tuple(map(float, split["perplexity"])),
            tuple(map(float, split["code_usage"])),
        )
        for name, split in record["splits"].items()
    }
    bits, whose = record["bits_per_dim"], record["checkpoint"]
    if not all(isinstance(text, str) for text in (whose["path"], whose["sha256"], record["model"])):
        raise TypeError("checkpoint.path, checkpoint.sha256 and model must be text")
    if not all(math.isfinite(split.distortion) for split in splits.values()):
        raise ValueError("a distortion is not finite")
    spec = CodeSpec(
        grids=tuple((int(height), int(width)) for height, width in record["grids"]),
        num_embeddings=tuple(map(int, record["num_embeddings"])),
        num_classes=int(record["num_classes"]),
        checkpoint=whose["path"],
        checkpoint_sha256=whose["sha256"],
        class_names=tuple(map(str, record.get("class_names", ()))),
        distortion={name: split.distortion for name, split in splits.items()},
        bits_per_dim=None if bits is None else (int(bits["dims"]), float(bits["offset"])),
    )
    per_level = [spec.num_embeddings, *(values for s in splits.values() for values in (s.perplexity, s.code_usage))]
    if not spec.grids or any(len(values) != len(spec.grids) for values in per_level):
        raise ValueError(f"not the same number of levels everywhere, as there are grids (={list(spec.grids)})")
    if min(*spec.num_embeddings, *(split.num_images for split in splits.values())) < 1:
        raise ValueError("num_embeddings and num_images must be positive")
    return Manifest(spec, splits, tuple(map(int, record["image_shape"])), record["model"])
