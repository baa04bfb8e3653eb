"""What W&B has of a run on disk, beside what ``metrics.csv`` has."""

import subprocess
import time
from pathlib import Path
from typing import Any

from exact_helpers import rows

from lit_vae.run.wandb_records import STEP, history, records, segments


def ended(run: Path) -> list[Path]:
    """All segments of a run; W&B's own process writes the last of them when `finish` has returned already."""
    found = segments(run / "wandb")
    deadline = time.monotonic() + 30.0
    while not any(record.HasField("exit") for record in records(found[-1])):
        assert time.monotonic() < deadline, "the record has no end"
        time.sleep(0.05)
    return found


def logged(run: Path) -> list[dict[str, Any]]:
    """The rows of all segments, one after the other."""
    return [row for segment in ended(run) for row in history(segment)]


def assert_wandb_has_each_step_once(run: Path) -> None:
    """One row for each of ``metrics.csv``, with its numbers, and with the pictures that were drawn then."""
    ours, theirs = rows(run), logged(run)
    assert [int(row["step"]) for row in ours] == [row[STEP] for row in theirs] == [row["_step"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        numbers = {name: float(value) for name, value in one.items() if value and name != "step"}
        pictures = {path.parent.name for path in (run / "media").glob(f"*/step_{int(one['step']) + 1}.png")}
        assert {name: value for name, value in other.items() if name in numbers} == numbers
        assert {name.split("/")[1] for name in other if name.startswith("media/")} == pictures


def service_of(pid: int) -> int:
    """The process of W&B that a training has started."""
    listing = ["ps", "-o", "pid=,args=", "--ppid", str(pid)]
    children = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    (service,) = [int(line.split()[0]) for line in children.splitlines() if "wandb-core" in line]
    return service
