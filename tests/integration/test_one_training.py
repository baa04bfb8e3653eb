"""A second training in a run directory is refused, and does not disturb the first."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import warm


def test_a_second_training_in_a_run_directory_is_refused(
    lightning: Callable[..., None], digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    args = ["fit", "--config", str(digits_config), "--run_dir", str(run), "--trainer.callbacks=[]"]
    args.append("--last_checkpoint.every_n_steps=5")
    first = warm.Popen(
        [sys.executable, "-m", "lit_vae.cli", *args, "--trainer.max_epochs=2000"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGSTOP)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit):
            lightning(*args, "--ckpt_path", "last")
        said = capsys.readouterr().err
        assert f"error: --run_dir {run}: another training runs there ({run}/run.lock is held by process " in said
        assert f"process {first.pid} on " in said
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    finally:
        first.kill()
        first.wait()
    lightning(*args, "--ckpt_path", "last", "--trainer.max_epochs=1")  # nobody holds it any more
