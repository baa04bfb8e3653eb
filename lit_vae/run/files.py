"""Files that are whole or absent."""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_vae.run.yaml_files import read_text

METRICS_FILE = "metrics.csv"

_staying: dict[Path, tuple[int, int]] = {}


class DirectoryMoved(OSError):
    """A directory that is written to has been moved or removed meanwhile."""


@contextmanager
def staying(directory: Path) -> Iterator[None]:
    """Refuse to make ``directory`` anew where it was moved in the meantime: half of what it holds would be there."""
    directory = directory.absolute()
    _staying[directory] = _place(directory)
    try:
        yield
    finally:
        del _staying[directory]


def refuse_moved(path: Path) -> None:
    """Call it before a write.

    Raises:
        DirectoryMoved: ``path`` is in a directory that was to stay, and has not.
    """
    for directory, place in _staying.items():
        if path.absolute().is_relative_to(directory) and _place(directory) != place:
            raise DirectoryMoved(
                f"the run directory {directory} was moved or removed while training wrote into it. Its last checkpoint"
                " is whole: go on with --ckpt_path last and, as --run_dir, where it is now."
            )


def _place(directory: Path) -> tuple[int, int]:
    try:
        found = directory.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def remove_partial(directory: Path) -> None:
    """Remove what `replacing` has left there of processes that were killed, below it, too."""
    for path in directory.rglob(".*.partial"):
        writer = re.search(r"\.(\d+)-[0-9a-f]{8}\.partial$", path.name)
        if writer and not Path("/proc", writer.group(1)).exists():
            path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it becomes ``path`` if all goes well, and goes away if not."""
    refuse_moved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # two hosts, or containers, may have a process of the same number
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values, two spaces deep; numbers that are none are refused, since JSON has no word for them."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; nothing where there is no file.

    Raises:
        ValueError: naming the file, which is not JSON, or is JSON of something else.
    """
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}). Make it anew.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, and must hold keys and values. Make it anew.")
    return content


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def why_unreadable(error: Exception) -> str:
    """What ``torch.load(weights_only=True)`` finds wrong with a file, on one line and without its advice."""
    text = str(error)
    if objects := re.search(r"(?i)GLOBAL [\w.]+|unsupported [^.\n]+", text):
        return f"it holds Python objects, and only plain data is loaded: {objects.group()}"
    is_clear = isinstance(error, RuntimeError | OSError)
    return re.split(r"\n|\. ", text)[0] if is_clear else "it is not a file of torch.save"
