"""What a killed process leaves is removed; a directory that is gone is not made again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_vae.run.files import DirectoryMoved, replacing, write_json
from lit_vae.run.lock import exclusive_training
from lit_vae.run.settings import with_home


def test_what_a_killed_writer_left_is_removed_and_a_live_ones_is_not(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / "checkpoints").mkdir()
    dead = [f".last.ckpt.{int(gone.stdout)}-0123abcd.partial", f".best.ckpt.{int(gone.stdout)}-0123abce.partial"]
    for name in dead:
        (tmp_path / "checkpoints" / name).touch()
    of_others = {f".run.json.{os.getppid()}-0123abcd.partial", ".mine.partial", "a.1-0123abcd.partial"}
    for name in of_others:
        (tmp_path / name).touch()
    with exclusive_training(tmp_path):
        assert not list((tmp_path / "checkpoints").iterdir())
        assert of_others <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_that_is_moved_is_not_made_again(tmp_path: Path, replaced: bool) -> None:
    run = tmp_path / "run"
    with exclusive_training(run):
        write_json(run / "run.json", {})
        run.rename(tmp_path / "moved")
        if replaced:
            run.mkdir()
        with (
            pytest.raises(DirectoryMoved, match=rf"{run} was moved or removed during .* Resume with --run_dir"),
            replacing(run / "media" / "samples" / "step_1.png"),
        ):
            pass
        write_json(tmp_path / "other" / "file.json", {})
    assert run.exists() == replaced
    assert not list(run.glob("*"))
    assert {path.name for path in (tmp_path / "moved").iterdir()} == {"run.json", "run.lock"}


def test_the_home_is_found_in_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"root": "~/a", "path": Path("~/b"), "list": ["~", "b~"], "n": 1, "none": None, "user": "~nobody-such/x"}
    assert with_home(given) == {
        "root": "/home/me/a", "path": Path("/home/me/b"), "list": ["/home/me", "b~"], "n": 1, "none": None,
        "user": "~nobody-such/x",
    }  # fmt: skip
