"""What W&B wrote on this disk, read by its format: LevelDB's log of protobuf records. W&B has no reader for it."""

import json
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK = 7, 2**15  # seven bytes of W&B's own come first
_WHOLE, _LAST = 1, 4


def starts(run: Path) -> list[Path]:
    """The folders of all starts of a run, the oldest first; their names begin with the time."""
    found = [path for path in (run / "wandb").glob("*run-*-*") if path.is_dir() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.name.removeprefix("offline-"))


def records(start: Path) -> Iterator[Any]:
    """The records of a start, as W&B's ``Record``, without one that was cut off when its process was killed."""
    from wandb.proto import wandb_internal_pb2

    for file in start.glob("*.wandb"):
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


def ended(start: Path) -> list[Any]:
    """The records of a start; W&B's own process writes the last of them when `finish` has returned already."""
    deadline = time.monotonic() + 30.0
    while not (found := list(records(start))) or not any(record.HasField("exit") for record in found):
        assert time.monotonic() < deadline, "the record has no end"
        time.sleep(0.05)
    return found


def values_of(record: Any) -> dict[str, Any]:
    """The row that a record is, values by name; empty where it is something else."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def rows_of(start: Path) -> list[dict[str, Any]]:
    """The rows of a start that has ended."""
    return [row for record in ended(start) if (row := values_of(record))]


def service_of(pid: int) -> int:
    """W&B's own process that a process has started."""
    listing = ["ps", "-o", "pid=,args=", "--ppid", str(pid)]
    children = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    (service,) = [int(line.split()[0]) for line in children.splitlines() if "wandb-core" in line]
    return service
