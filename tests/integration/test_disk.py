"""A run directory on a disk that is really full, or becomes read-only, in the middle of training."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from exact_helpers import COMMON, assert_same_run, schedule_and_ema

from lit_vae.run.resume import is_whole

ROOT = Path(__file__).resolve().parents[2]
Lightning = Callable[..., None]


def mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of sixteen megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "none", folder)
    yield folder
    while folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "others").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_read_only(disk: Path) -> None:
    """For whatever is opened from now on: files that are open for writing forbid more."""
    mount("--bind", "-o", "ro", disk, disk)


def make_room(disk: Path) -> None:
    (disk / "others").unlink()


def make_writable(disk: Path) -> None:
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "mend", "said"),
    [(fill, make_room, "No space left on device"), (make_read_only, make_writable, "Read-only file system")],
)
def test_a_disk_that_fails_is_one_error_and_keeps_the_last_checkpoint(
    lightning: Lightning,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Path], None],
    mend: Callable[[Path], None],
    said: str,
) -> None:
    config = schedule_and_ema(ROOT / "configs" / "vae" / "digits.yaml", tmp_path, 1)

    def train(run: Path) -> None:
        options = ["--ckpt_path=auto", "--last_checkpoint.every_n_steps=3", *COMMON]
        lightning("fit", "--config", config, "--run_dir", run, *options)

    from callbacks import EMA

    straight, run, steps = tmp_path / "straight", disk / "run", 0
    train(straight)
    with monkeypatch.context() as patch:
        step = EMA.on_train_batch_end

        def spoiled(self, *args):
            nonlocal steps
            steps += 1
            if steps == 10:
                spoil(disk)
            return step(self, *args)

        patch.setattr(EMA, "on_train_batch_end", spoiled)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train(run)
    assert stopped.value.code == 1
    errors = capfd.readouterr().err
    assert errors.count("error: the run directory can no longer be written to") == 1
    assert said in errors
    assert "Traceback" not in errors
    assert is_whole(run / "checkpoints" / "last.ckpt")
    mend(disk)
    assert not list(run.rglob(".*partial"))
    train(run)
    assert_same_run(straight, run)


def test_a_directory_that_is_read_only_is_refused_before_training(
    lightning: Lightning, disk: Path, digits_config: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_read_only(disk)
    with pytest.raises(SystemExit) as stopped:
        lightning("fit", "--config", digits_config, "--run_dir", disk / "run")
    assert stopped.value.code == 1
    errors = capfd.readouterr().err
    assert f"error: --run_dir {disk / 'run'}: cannot be written to ([Errno 30] Read-only file system" in errors
    assert "Traceback" not in errors
