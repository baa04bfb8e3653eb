"""What is sent of a start of a W&B run, and what is said where it is not."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lit_vae.run.wandb_records import copy, history, in_blocks, is_synced, records, row_of, waiting
from lit_vae.tools import upload as uploading
from lit_vae.tools.upload import upload

HEADER = b":W&B\x00\x00\x00"
LENGTHS = (1, 100, 32768, 70000, 3)


def made_start(folder: Path, lengths: tuple[int, ...] = (), rows: int = 0, killed: bool = True) -> Path:
    """A start as W&B keeps it: outputs of these lengths, rows ``{"_step": n}``, and an end unless it was killed."""
    from wandb.proto import wandb_internal_pb2

    written: list[Any] = [wandb_internal_pb2.Record(num=1)]  # type: ignore[attr-defined]
    written[0].run.run_id = "a"
    for length in lengths:
        written.append(wandb_internal_pb2.Record(num=len(written) + 1))  # type: ignore[attr-defined]
        written[-1].output.line = "x" * length
    for step in range(rows):
        written.append(wandb_internal_pb2.Record(num=len(written) + 1))  # type: ignore[attr-defined]
        item = written[-1].history.item.add()
        item.key, item.value_json = "_step", json.dumps(step)
    if not killed:
        written.append(wandb_internal_pb2.Record(num=len(written) + 1))  # type: ignore[attr-defined]
        written[-1].exit.exit_code = 0
    segment = folder / "wandb" / "offline-run-20260101_000000-a"
    (segment / "files").mkdir(parents=True)
    (segment / "run-a.wandb").write_bytes(in_blocks(HEADER, [record.SerializeToString() for record in written]))
    return segment


def test_a_copy_has_the_records_that_are_kept_whatever_their_length(tmp_path: Path) -> None:
    segment = made_start(tmp_path, lengths=LENGTHS, rows=4)
    assert [len(record.output.line) for record in records(segment) if record.HasField("output")] == list(LENGTHS)
    copy(segment, tmp_path / "copy", lambda record: (row := row_of(record)) is None or row["_step"] > 1, end=7)
    assert [row["_step"] for row in history(tmp_path / "copy")] == [2, 3]
    others = [record for record in records(segment) if not record.HasField("history")]
    *copied, end = [record for record in records(tmp_path / "copy") if not record.HasField("history")]
    assert copied == others
    assert end.exit.exit_code == 7
    assert (tmp_path / "copy" / "files").resolve() == segment / "files"


@pytest.mark.parametrize("room", range(12))
def test_a_block_may_end_anywhere(tmp_path: Path, room: int) -> None:
    """Before a header, within one, and just after it."""
    segment = made_start(tmp_path)
    before = [record.SerializeToString() for record in records(segment)]
    filling = type(next(records(segment)))(num=2)
    filling.output.line = "x" * (2**15 - len(in_blocks(HEADER, before)) - room - 30)
    filling.output.line += "x" * (2**15 - room - len(in_blocks(HEADER, [*before, filling.SerializeToString()])))
    written = [*before, filling.SerializeToString(), *before]
    (segment / "run-a.wandb").write_bytes(in_blocks(HEADER, written))
    assert len(in_blocks(HEADER, written[:-1])) == 2**15 - room
    assert [record.SerializeToString() for record in records(segment)] == written


def test_a_start_that_ended_keeps_its_end(tmp_path: Path) -> None:
    segment = made_start(tmp_path, rows=1, killed=False)
    copy(segment, tmp_path / "copy", lambda _: True, end=7)
    assert list(records(tmp_path / "copy")) == list(records(segment))


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """In the place of ``python -m wandb sync COPY``."""
    (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python").chmod(0o700)
    monkeypatch.setattr(sys, "executable", os.fspath(folder / "python"))


def test_a_refusal_is_said_with_its_reason_and_nothing_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = made_start(tmp_path, rows=1)
    program(
        tmp_path, monkeypatch, "echo 'wandb: ERROR Error initializing run: permission denied'; echo 'wandb: ERROR '"
    )
    assert upload(segment, -1) == "Error initializing run: permission denied"
    assert not is_synced(segment)
    assert waiting(tmp_path / "wandb") == [segment]


def test_only_what_wandb_marks_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = made_start(tmp_path, rows=1)
    program(tmp_path, monkeypatch, 'touch "$4/run-a.wandb.synced"; exit 1')
    assert upload(segment, -1) == "wandb sync ended with exit code 1"
    assert not is_synced(segment)
    program(tmp_path, monkeypatch, 'touch "$4/run-a.wandb.synced"')
    assert upload(segment, -1) == ""
    assert is_synced(segment)
    assert waiting(tmp_path / "wandb") == []


def test_an_upload_that_hangs_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = made_start(tmp_path, rows=1)
    monkeypatch.setattr(uploading, "SENDING", 0.3)
    program(tmp_path, monkeypatch, f"echo retrying; sleep 60 & echo $! > {tmp_path}/child; wait")
    begun = time.monotonic()
    assert upload(segment, -1) == "retrying; no end within 0 seconds"
    assert time.monotonic() - begun < 20.0
    child = int((tmp_path / "child").read_text())
    while _runs(child):
        assert time.monotonic() - begun < 20.0
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
