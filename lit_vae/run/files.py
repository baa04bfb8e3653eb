"""Files that are written completely or not at all."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_vae.run.yaml_files import read_text

CONFIG_FILE = "config.yaml"
RECORD_FILE = "run.json"
METRICS_FILE = "metrics.csv"
TEST_METRICS_FILE = "test_metrics.json"
EVALUATION_FILE = "evaluation.json"
"""Files of a run directory that both commands read."""

_watched: dict[Path, tuple[int, int]] = {}


class DirectoryMoved(OSError):
    """The run directory was moved or removed during training."""


@contextmanager
def staying_in_place(directory: Path) -> Iterator[None]:
    """Within the block, `refuse_moved` raises if ``directory`` was moved: no half run appears in its old place."""
    directory = directory.absolute()
    _watched[directory] = _place(directory)
    try:
        yield
    finally:
        del _watched[directory]


def refuse_moved(path: Path) -> None:
    """Call it before a write.

    Raises:
        DirectoryMoved: ``path`` is in a directory of `staying_in_place` that was moved or removed.
    """
    for directory, place in _watched.items():
        if path.absolute().is_relative_to(directory) and _place(directory) != place:
            raise DirectoryMoved(
                f"the run directory {directory} was moved or removed during training. Its last checkpoint is complete."
                " Resume with --run_dir NEW_PLACE --ckpt_path last."
            )


def _place(directory: Path) -> tuple[int, int]:
    try:
        found = directory.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def remove_partial(directory: Path) -> None:
    """Remove the files that `replacing` left below a directory when its process was killed."""
    for path in directory.rglob(".*.partial"):
        writer = re.search(r"\.(\d+)-[0-9a-f]{8}\.partial$", path.name)
        if writer and not Path("/proc", writer.group(1)).exists():
            path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``: renamed to ``path`` after the block, removed if the block raises."""
    refuse_moved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # processes on two hosts, or in two containers, may have the same number
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values. NaN and infinity raise ValueError, since JSON has neither."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; an empty dictionary if there is no file.

    Raises:
        ValueError: the file is not JSON, or holds something else than keys and values.
    """
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}). Restore the file, or write it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} contains a {type(content).__name__}, not keys and values. Restore the file.")
    return content


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number in JSON")


def why_unreadable(error: Exception) -> str:
    """Why ``torch.load(weights_only=True)`` refused a file, in one line and without its advice."""
    text = str(error)
    if objects := re.search(r"(?i)GLOBAL [\w.]+|unsupported [^.\n]+", text):
        return f"it holds Python objects, and only plain data are loaded: {objects.group()}"
    is_clear = isinstance(error, RuntimeError | OSError)
    return re.split(r"\n|\. ", text)[0] if is_clear else "it was not written by torch.save"
