"""What folders of codes and of latents have in common: a description in JSON, and a name once they are complete."""

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
from torch import Tensor

from lit_vae.encoded import EncodedSpec

FORMAT: Final = 1
WRITE: Final = "Write it with: lit-vae encode RUN --out DIR."

SpecT = TypeVar("SpecT", bound=EncodedSpec)
SummaryT = TypeVar("SummaryT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Manifest(Generic[SpecT, SummaryT]):
    """The description of a folder: what a prior needs to know, and what is known of each split, by name."""

    spec: SpecT
    splits: dict[str, SummaryT]


class EncodedWriter:
    """Writes a folder under the name ``<root>.partial``, and renames it when it is complete.

    Raises:
        ValueError: the folder exists.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists():
            raise ValueError(
                f"{type(self).__name__}: root (={str(root)!r}) must not exist yet. Remove it or choose another --out."
            )
        self.partial = self.root.with_name(f"{self.root.name}.partial")

    def complete(self, name: str, record: dict[str, Any]) -> None:
        """Write the description, and give the folder its name."""
        (self.partial / name).write_text(json.dumps(record, indent=2) + "\n")
        os.rename(self.partial, self.root)

    def discard(self) -> None:
        """Remove what was written of an incomplete folder."""
        shutil.rmtree(self.partial, ignore_errors=True)


def read_description(
    component: str, root: str | Path, name: str, parse: Callable[[dict[str, Any]], ResultT]
) -> ResultT:
    """Read the description of a folder: ``parse`` of the content of the file ``name`` in it.

    ``parse`` raises if a key is missing or wrong. Errors name the component, a data module.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it has another format, or is damaged.
    """
    path = Path(root) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{component}: root (={str(root)!r}) contains no {name}. {WRITE} Or change data.init_args.root."
        )
    try:
        record = json.loads(path.read_text())
        found = record["format"]
        result = parse(record) if found == FORMAT else None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{path}: not a complete description of {component.lower()} ({error!r}). {WRITE}") from error
    if result is None:
        raise ValueError(f"{path}: format (={found!r}) must be {FORMAT}; another version of lit_vae wrote it. {WRITE}")
    return result


def summary_of(component: str, root: str | Path, splits: dict[str, SummaryT], split: str) -> SummaryT:
    """What is known of a split.

    Raises:
        FileNotFoundError: the folder has no such split.
    """
    if split not in splits:
        has = ", ".join(splits) or "nothing"
        raise FileNotFoundError(
            f"{component}: root (={str(root)!r}) must contain the split {split}, but contains {has}. {WRITE}"
        )
    return splits[split]


def check_range(path: Path, values: Tensor | np.ndarray, low: int, high: int, because: str) -> None:
    """Check integers of a file.

    Raises:
        ValueError: one is outside ``low .. high``.
    """
    found = int(values.min()), int(values.max())
    if found[0] < low or found[1] > high:
        raise ValueError(
            f"{path}: values (={found[0]} to {found[1]}) must be between {low} and {high}: {because}. {WRITE}"
        )


def check_labels(path: Path, labels: Tensor | np.ndarray, num_classes: int) -> None:
    """Check the labels of a file: all -1 if there are no classes.

    Raises:
        ValueError: one is out of range.
    """
    check_range(path, labels, 0 if num_classes else -1, num_classes - 1, f"num_classes (={num_classes})")


def common_record(spec: EncodedSpec) -> dict[str, Any]:
    """The part of a description that all kinds of folders share."""
    bits = spec.bits_per_dim
    return {
        "format": FORMAT,
        "checkpoint": {"path": spec.checkpoint, "sha256": spec.checkpoint_sha256},
        "model": spec.model,
        "image_shape": spec.image_shape,
        "num_classes": spec.num_classes,
        "class_names": spec.class_names,
        "bits_per_dim": None if bits is None else {"dims": bits[0], "offset": bits[1]},
    }


def common_arguments(record: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `EncodedSpec` from a description.

    Raises:
        KeyError, TypeError, ValueError: one is missing or wrong.
    """
    bits, whose = record["bits_per_dim"], record["checkpoint"]
    if not all(isinstance(text, str) for text in (whose["path"], whose["sha256"], record["model"])):
        raise TypeError("checkpoint.path, checkpoint.sha256 and model must be text")
    return {
        "checkpoint": whose["path"],
        "checkpoint_sha256": whose["sha256"],
        "model": record["model"],
        "image_shape": tuple(map(int, record["image_shape"])),
        "num_classes": int(record["num_classes"]),
        "class_names": tuple(map(str, record.get("class_names", ()))),
        "bits_per_dim": None if bits is None else (int(bits["dims"]), float(bits["offset"])),
    }


def require_positive(**numbers: int) -> None:
    """Check whole numbers of a description."""
    if min(numbers.values()) < 1:
        raise ValueError(f"{' and '.join(numbers)} must be positive")


def finite(name: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """The numbers, if all are finite."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{name} is not finite")
    return values
