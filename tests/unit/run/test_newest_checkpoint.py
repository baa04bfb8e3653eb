"""What a run goes on from: the newest checkpoint that is whole, or nothing; and when a job has tried often enough."""

import os
from pathlib import Path

import pytest
import torch

from lit_vae.run.errors import TrainingStopped
from lit_vae.run.resume import Source, checkpoint_in, is_whole, note_start


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """With a last checkpoint and the one before it."""
    (tmp_path / "checkpoints").mkdir()
    for step, name in enumerate(("previous", "last")):
        torch.save({"step": step, "weights": torch.rand(1000)}, tmp_path / "checkpoints" / f"{name}.ckpt")
    return tmp_path


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_last_and_best_are_files_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert checkpoint_in(tmp_path, "best").path == str(tmp_path / "checkpoints" / "best.ckpt")
    assert checkpoint_in(tmp_path, None) == Source()
    for fit in (True, False):
        with pytest.raises(
            ValueError, match=r"--ckpt_path last: there is no file .*last\.ckpt\. Give last, best or the path"
        ):
            checkpoint_in(tmp_path, "last", fit)


@pytest.mark.parametrize("asked", ["last", "auto"])
def test_the_newest_is_gone_on_from(run: Path, asked: str) -> None:
    assert checkpoint_in(run, asked, fit=True) == Source(str(run / "checkpoints" / "last.ckpt"))


@pytest.mark.parametrize("asked", ["last", "auto"])
@pytest.mark.parametrize("damage", [cut_in_half, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_the_one_before_stands_in_for_a_broken_one(run: Path, asked: str, damage) -> None:
    last, previous = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "previous.ckpt"
    damage(last)
    with pytest.warns(UserWarning, match=rf"{last} is damaged: training resumes from {previous}, the one before it"):
        source = checkpoint_in(run, asked, fit=True)
    assert source == Source(str(previous), last)
    source.set_aside()
    assert {path.name for path in previous.parent.iterdir()} == {"previous.ckpt", "broken.ckpt"}
    assert checkpoint_in(run, asked, fit=True).path == str(previous)  # without a word: what was broken is aside


def test_what_is_measured_is_never_another_checkpoint_than_was_asked_for(run: Path) -> None:
    cut_in_half(run / "checkpoints" / "last.ckpt")
    assert checkpoint_in(run, "last").path == str(run / "checkpoints" / "last.ckpt")


def test_a_run_whose_checkpoints_are_all_broken_does_not_start_anew(run: Path) -> None:
    for name in ("last", "previous"):
        cut_in_half(run / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt and .*previous\.ckpt damaged: .* Give the path of another"):
        checkpoint_in(run, "auto", fit=True)


def test_auto_is_nothing_where_there_is_nothing_and_for_fit_alone(tmp_path: Path) -> None:
    assert checkpoint_in(tmp_path, "auto", fit=True) == Source()
    with pytest.raises(ValueError, match=r"--ckpt_path auto is for fit\. Give last or best\."):
        checkpoint_in(tmp_path, "auto", fit=False)


def test_a_whole_checkpoint_is_whole(run: Path) -> None:
    assert is_whole(run / "checkpoints" / "last.ckpt")
    assert not is_whole(Path(__file__))


def start(monkeypatch: pytest.MonkeyPatch, run: Path, restarts: int, job: str = "7") -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    note_start(run, str(run / "checkpoints" / "last.ckpt"))


def test_a_job_that_makes_no_progress_ends_with_the_reason(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for restarts in range(3):
        start(monkeypatch, run, restarts)
    with pytest.raises(
        TrainingStopped, match=r"job 7 was restarted 3 times without a new checkpoint .*so it ends here"
    ):
        start(monkeypatch, run, 3)
    start(monkeypatch, run, 0, job="8")  # a new job is somebody's decision


def test_a_job_that_makes_progress_goes_on_for_ever(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for restarts in range(12):
        if restarts % 2:
            os.utime(run / "checkpoints" / "last.ckpt", ns=(0, restarts))
        start(monkeypatch, run, restarts)


def test_a_job_without_any_checkpoint_is_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for restarts in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        note_start(tmp_path, None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(TrainingStopped, match=r"last_checkpoint\.every_n_minutes"):
        note_start(tmp_path, None)


def test_outside_of_slurm_nothing_is_counted(run: Path) -> None:
    for _ in range(9):
        note_start(run, None)
    assert {path.name for path in run.iterdir()} == {"checkpoints"}
