"""One run directory, one training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_vae.run.lock import LOCK_DESCRIPTOR, exclusive_training, inheritable, is_first_process, is_held, locked


def test_a_lock_has_one_holder_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "run.lock"
    with locked(path), pytest.raises(BlockingIOError, match=rf"run\.lock is held by process {os.getpid()} on "):
        locked(path).__enter__()
    with locked(path):
        pass


def test_who_asks_whether_a_lock_is_held_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    assert not is_held(path)
    assert not path.exists()
    with locked(path):
        assert is_held(path)
    path.write_text("1 on a host\n")
    path.chmod(0o400)
    assert not is_held(path)
    assert path.read_text() == "1 on a host\n"


def test_a_lock_outlives_who_handed_it_on(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with locked(path) as held:
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held.fileno()])
    with pytest.raises(BlockingIOError):
        locked(path).__enter__()
    heir.communicate(b"\n", timeout=60)
    with locked(path):
        pass


ENTERS = """if True:
    import sys
    from pathlib import Path
    from lit_vae.run.lock import locked
    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        input()
"""


def test_who_inherits_a_lock_enters_it_and_is_named_by_it(tmp_path: Path) -> None:
    path, other = tmp_path / "run.lock", tmp_path / "other.lock"
    with locked(path) as held, locked(other):
        command = [sys.executable, "-c", ENTERS]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        inherits = {"pass_fds": [held.fileno()], "env": inheritable(held), **pipes}
        heir = subprocess.Popen([*command, str(path)], **inherits)  # type: ignore[call-overload]
        assert heir.stdout.readline() == "held\n"
        stranger = subprocess.run([*command, str(other)], input="\n", **{**inherits, "stdin": None}, check=False)
        assert "other.lock is held by process" in stranger.stderr  # it was handed another one
    with pytest.raises(BlockingIOError, match=f"is held by process {heir.pid} on "):
        locked(path).__enter__()
    heir.communicate("\n", timeout=60)
    with locked(path):
        pass


@pytest.mark.parametrize("descriptor", ["none", "987654", "0"])
def test_a_lock_that_was_not_handed_on_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptor: str
) -> None:
    monkeypatch.setenv(LOCK_DESCRIPTOR, descriptor)
    with locked(tmp_path / "run.lock"), pytest.raises(BlockingIOError):
        locked(tmp_path / "run.lock").__enter__()


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # torchrun's second node
        ({"LOCAL_RANK": "1"}, False),  # started by Lightning
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_locks_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
    with exclusive_training(tmp_path):
        if first:
            message = rf"--run_dir {tmp_path}: another training runs there \({tmp_path}/run\.lock is held by"
            with pytest.raises(
                ValueError, match=message + r" process \d+ on .*\)\. Wait until it ends, stop it, or give"
            ):
                exclusive_training(tmp_path).__enter__()
        assert (tmp_path / "run.lock").exists() == first
    with exclusive_training(tmp_path):
        pass


def test_a_directory_that_cannot_be_written_to_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--run_dir .*file/run: cannot be written to \(.*\)\. Give another directory"):
        exclusive_training(tmp_path / "file" / "run").__enter__()
