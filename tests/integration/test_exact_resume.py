"""What was trained plus what was resumed equals the uninterrupted run, bit by bit."""

import csv
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Lightning = Callable[..., None]
STEPS = 40  # of 22 steps an epoch: the end lies in the middle of the second epoch
COMMON = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", f"--trainer.max_steps={STEPS}"]


def schedule_and_ema(config: Path, tmp_path: Path, val_every: int) -> Path:
    """The quickstart with a KL warm-up, a learning-rate schedule, EMA and dequantisation noise."""
    import yaml

    data = yaml.safe_load(config.read_text())
    data["trainer"]["callbacks"] = [{"class_path": "callbacks.EMA", "init_args": {"decay": 0.9}}]
    data["trainer"]["check_val_every_n_epoch"] = val_every
    init = data["model"]["init_args"]
    warmup = {"class_path": "lit_vae.schedules.LinearWarmup", "init_args": {"steps": 30}}
    init["objective"] = {"class_path": "lit_vae.objectives.ELBO", "init_args": {"beta": warmup}}
    init["lr_scheduler"] = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": STEPS}}
    data["data"]["init_args"]["dequantize"] = True
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def final_state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_run(first: Path, second: Path) -> None:
    a, b = final_state(first), final_state(second)
    assert a["global_step"] == b["global_step"] == STEPS
    for key in ("state_dict", "current_model_state"):
        assert a[key].keys() == b[key].keys()
        for name in a[key]:
            assert torch.equal(a[key][name], b[key][name]), f"{key} {name}"
    for p, q in zip(
        a["optimizer_states"][0]["state"].values(), b["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(p[k], q[k]) for k in p)
    assert a["lr_schedulers"] == b["lr_schedulers"]
    assert rows(first) == rows(second)


@pytest.fixture(params=[1, 2], ids=lambda every: f"val_every_{every}")
def straight(
    request: pytest.FixtureRequest, lightning: Lightning, digits_config: Path, tmp_path: Path
) -> tuple[Path, Path]:
    """The configuration and an uninterrupted run of it."""
    config = schedule_and_ema(digits_config, tmp_path, request.param)
    lightning("fit", "--config", config, "--run_dir", tmp_path / "straight", *COMMON)
    return config, tmp_path / "straight"


@pytest.mark.parametrize("stop_at", [9, 22, 30])
def test_stopped_and_resumed_equals_uninterrupted(
    lightning: Lightning, straight: tuple[Path, Path], tmp_path: Path, stop_at: int
) -> None:
    config, reference = straight
    run = tmp_path / "resumed"
    part = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", f"--trainer.max_steps={stop_at}"]
    lightning("fit", "--config", config, "--run_dir", run, *part)
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON)
    assert_same_run(reference, run)


def test_killed_and_resumed_equals_uninterrupted(
    lightning: Lightning, straight: tuple[Path, Path], tmp_path: Path
) -> None:
    config, reference = straight
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "lit_vae.cli", "fit", "--config", str(config), "--run_dir", str(run)]
    command += [*COMMON, "--last_checkpoint.every_n_steps=3"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
