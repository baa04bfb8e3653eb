"""What W&B has kept of a run on this disk: folders ``RUN/wandb/[offline-]run-<time>-<id>``, one for each start."""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

STEP = "trainer/global_step"
"""The step of a row, by Lightning's name for it."""

_HEADER, _BLOCK = 7, 2**15  # of the log format that W&B writes records in: LevelDB's, after seven bytes of its own
_WHOLE, _LAST = 1, 4


def segments(wandb_dir: Path, offline_only: bool = False) -> list[Path]:
    """The folders of all starts of a run, the oldest first; the names begin with the time."""
    found = [path for path in wandb_dir.glob("*run-*-*") if path.is_dir() and not path.is_symlink()]
    kept = [
        path for path in found if path.name.startswith("offline-run-" if offline_only else ("offline-run-", "run-"))
    ]
    return sorted(kept, key=lambda path: path.name.removeprefix("offline-"))


def records(segment: Path) -> Iterator[Any]:
    """The records of a start, as W&B's ``Record``; what was torn off as the process was killed is left out."""
    from wandb.proto import wandb_internal_pb2

    for file in segment.glob("*.wandb"):
        for record in _chunks(file.read_bytes()):
            yield wandb_internal_pb2.Record.FromString(record)  # type: ignore[attr-defined]  # made as it is imported


def _chunks(data: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, b""
    while at + _HEADER <= len(data):
        if (left := _BLOCK - at % _BLOCK) < _HEADER:
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + _HEADER : at + _HEADER + length]
        if len(part) < length or zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            return
        at += _HEADER + length
        parts += part
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""


def history(segment: Path) -> Iterator[dict[str, Any]]:
    """The rows that a start has logged, in their order: values by name."""
    for record in records(segment):
        if record.HasField("history"):
            yield {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def last_step(found: Iterable[Path]) -> int:
    """The last step that any of these segments has a row of; -1 where there is none."""
    return max((int(row[STEP]) for segment in found for row in history(segment) if STEP in row), default=-1)
