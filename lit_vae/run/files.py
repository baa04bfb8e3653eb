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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it becomes ``path`` if all goes well, and goes away if not."""
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
