"""What W&B has kept of a run on this disk: folders ``RUN/wandb/[offline-]run-<time>-<id>``, one for each start."""

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

STEP = "trainer/global_step"
"""The step of a row, by Lightning's name for it."""

ROW = "_step"
"""The step of a row, by W&B's name for it: it is given the same."""

SYNCED = ".synced"
"""What W&B adds to the name of a record, for the file that says that all of it is on the server."""

_HEADER, _BLOCK = 7, 2**15  # of the log format that W&B writes records in: LevelDB's, after seven bytes of its own
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def segments(wandb_dir: Path, offline_only: bool = False) -> list[Path]:
    """The folders of all starts of a run, the oldest first; the names begin with the time."""
    found = [path for path in wandb_dir.glob("*run-*-*") if path.is_dir() and not path.is_symlink()]
    kept = [path for path in found if is_offline_start(path) or (path.name.startswith("run-") and not offline_only)]
    return sorted(kept, key=lambda path: path.name.removeprefix("offline-"))


def is_offline_start(segment: Path) -> bool:
    """Whether a start was offline, which its name says."""
    return segment.name.startswith("offline-run-")


def is_synced(segment: Path) -> bool:
    """Whether all of a start is known to be on the server."""
    return any(segment.glob(f"*.wandb{SYNCED}"))


def mark_synced(segment: Path) -> None:
    """Say that all of a start is on the server, as W&B does."""
    for record in segment.glob("*.wandb"):
        record.with_name(record.name + SYNCED).touch()


def waiting(wandb_dir: Path) -> list[Path]:
    """The starts of a run that were offline, have logged a step, and are not known to be on the server."""
    found = segments(wandb_dir, offline_only=True)
    return [segment for segment in found if not is_synced(segment) and next(history(segment), None) is not None]


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


def copy(segment: Path, target: Path, keeps: Callable[[Any], bool], end: int) -> None:
    """Copy those records of a start that ``keeps`` is true of, without what was torn off, beside a link to its files.

    A start that was killed gets the end that it lacks: exit code ``end``.
    """
    from wandb.proto import wandb_internal_pb2

    target.mkdir(parents=True)
    (target / "files").symlink_to((segment / "files").absolute())
    found = list(records(segment))
    if not any(record.HasField("exit") for record in found):
        last = wandb_internal_pb2.Record(num=found[-1].num + 1)  # type: ignore[attr-defined]
        last.exit.exit_code = end
        found.append(last)
    for file in segment.glob("*.wandb"):
        header = file.read_bytes()[:_HEADER]
        kept = [record.SerializeToString() for record in found if keeps(record)]
        (target / file.name).write_bytes(in_blocks(header, kept))


def in_blocks(header: bytes, kept: Iterable[bytes]) -> bytes:
    """The file of a start with these records, for `_chunks`; a block without room for a header ends in zeros."""
    data = bytearray(header)
    for record in kept:
        left, first = record, True
        while first or left:
            room = _BLOCK - len(data) % _BLOCK
            if room < _HEADER:
                data += bytes(room)
                continue
            part, left = left[: room - _HEADER], left[room - _HEADER :]
            kind = (_FIRST if left else _WHOLE) if first else (_MIDDLE if left else _LAST)
            data += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind) + part
            first = False
    return bytes(data)


def row_of(record: Any) -> dict[str, Any] | None:
    """The row that a record is, values by name; None where it is something else."""
    if not record.HasField("history"):
        return None
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


def history(segment: Path) -> Iterator[dict[str, Any]]:
    """The rows that a start has logged, in their order."""
    return (row for record in records(segment) if (row := row_of(record)) is not None)


def last_step(found: Iterable[Path]) -> int:
    """The last step that any of these segments has a row of; -1 where there is none."""
    return max((int(row[ROW]) for segment in found for row in history(segment)), default=-1)
