"""What W&B has of a run, beside what ``metrics.csv`` and ``media`` have."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from exact_helpers import rows
from fake_wandb import FakeWandb, fake_wandb
from PIL import Image
from wandb_files import rows_of, starts

from lit_vae.run.panels import parts_of
from lit_vae.run.wandb_logger import STEP
from lit_vae.tools.upload import sync


def online(address: str) -> dict[str, str]:
    """Variables of a user of that server, to whom rows are sent soon."""
    return {"WANDB_BASE_URL": address, "WANDB_API_KEY": "k" * 40, "WANDB_MODE": "online"}


def assert_wandb_has_each_step_once(run: Path) -> None:
    """In the folder of the last offline start, and on a server after ``lit-vae sync``."""
    assert_each_step_once(run, rows_of(starts(run)[-1]))
    assert_upload_has_each_step_once(run)


def assert_upload_has_each_step_once(run: Path) -> None:
    """On a server that has nothing else."""
    with fake_wandb() as (server, address), pytest.MonkeyPatch.context() as patch:
        for name, value in online(address).items():
            patch.setenv(name, value)
        sync([str(run)])
        assert_server_has_each_step_once(run, server)


def assert_server_has_each_step_once(run: Path, server: FakeWandb) -> None:
    """And the files of all pictures, to the byte."""
    (found,) = server.rows.values()
    assert_each_step_once(run, found)
    (files,) = server.files.values()
    sheets = [content for name, content in files.items() if name.startswith("media/images/media/")]
    pictures = list((run / "media").glob("*/*.png"))
    assert sorted(sheets) == sorted(path.read_bytes() for path in pictures)
    parts = {key(Image.open(BytesIO(files[name]))) for name in files if name.startswith("media/images/images/")}
    assert parts == {key(part) for path in pictures for part in parts_of(path)}
    shown = {name for row in found for value in row.values() if isinstance(value, dict) for name in value["filenames"]}
    assert shown == {name for name in files if name.startswith("media/")}


def key(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    """The pixels of an image, to compare."""
    return image.mode, image.size, image.tobytes()


def assert_each_step_once(run: Path, theirs: Sequence[dict[str, Any]]) -> None:
    """One row for each of ``metrics.csv``, with its numbers, and with the pictures that were drawn then."""
    ours = rows(run)
    assert [int(row["step"]) for row in ours] == [row[STEP] for row in theirs] == [row["_step"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        numbers = {name: float(value) for name, value in one.items() if value and name != "step"}
        pictures = {path.parent.name for path in (run / "media").glob(f"*/step_{int(one['step']) + 1}.png")}
        assert {name: value for name, value in other.items() if name in numbers} == numbers
        assert {name.split("/")[1] for name in other if name.startswith("media/")} == pictures
