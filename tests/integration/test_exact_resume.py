"""What was trained plus what was resumed equals the uninterrupted run, bit by bit."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from exact_helpers import COMMON, STEPS, assert_same_run, final_state, rows, schedule_and_ema

from lit_vae.cli import main

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=[1, 2], ids=lambda every: f"val_every_{every}")
def straight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration and an uninterrupted run of it."""
    folder = tmp_path_factory.mktemp("straight")
    config = schedule_and_ema(ROOT / "configs" / "vae" / "digits.yaml", folder, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", f"--config={config}", f"--run_dir={folder}/run", *COMMON])
        main()
    return config, folder / "run"


@pytest.mark.parametrize("stop_at", [22, *(pytest.param(step, marks=pytest.mark.slow) for step in (9, 30))])
def test_stopped_and_resumed_equals_uninterrupted(
    lightning: Lightning, straight: tuple[Path, Path], tmp_path: Path, stop_at: int
) -> None:
    config, reference = straight
    run = tmp_path / "resumed"
    part = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", f"--trainer.max_steps={stop_at}"]
    lightning("fit", "--config", config, "--run_dir", run, *part)
    seed = ["--seed_everything=true"] if stop_at == 9 else []  # a run goes on in its own noise
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON, *seed)
    assert_same_run(reference, run)


def test_killed_and_resumed_equals_uninterrupted(
    lightning: Lightning, straight: tuple[Path, Path], tmp_path: Path
) -> None:
    config, reference = straight
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "lit_vae.cli", "fit", "--config", str(config), "--run_dir", str(run)]
    command += [*COMMON, "--last_checkpoint.every_n_steps=3"]
    process = warm.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = run / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert final_state(run)["global_step"] < STEPS
    lightning(
        "fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON, "--last_checkpoint.every_n_steps=3"
    )
    assert_same_run(reference, run)


@pytest.mark.slow
def test_the_row_of_a_step_is_not_lost_between_its_checkpoint_and_the_logger(
    lightning: Lightning, straight: tuple[Path, Path], tmp_path: Path
) -> None:
    """As if killed in the moment after the checkpoint was written: its row has not reached the file."""
    config, reference = straight
    run = tmp_path / "run"
    part = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", "--trainer.max_steps=9"]
    lightning("fit", "--config", config, "--run_dir", run, *part)
    metrics = run / "metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    assert lines[-1].startswith("8,")
    metrics.write_text("".join(lines[:-1]))
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON)
    assert_same_run(reference, run)


@pytest.mark.parametrize("val_check_interval", [10, 11])
def test_the_end_of_an_epoch_is_saved_whether_or_not_a_validation_follows_it(
    lightning: Lightning, digits_config: Path, tmp_path: Path, val_check_interval: int
) -> None:
    """Of 22 batches, validations follow the 10th and the 20th, or the 11th and the last."""
    config, run = schedule_and_ema(digits_config, tmp_path, 1), tmp_path / "run"
    lightning(
        "fit",
        "--config",
        config,
        "--run_dir",
        run,
        "--trainer.max_epochs=1",
        f"--trainer.val_check_interval={val_check_interval}",
    )
    assert final_state(run)["global_step"] == 22
    assert [int(row["step"]) + 1 for row in rows(run) if row["val/loss"]] == [
        val_check_interval,
        2 * val_check_interval,
    ]
