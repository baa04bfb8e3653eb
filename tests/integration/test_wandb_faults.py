"""Whatever W&B does, and whatever is done to it: training ends well, and W&B has each step once."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm
import yaml
from exact_helpers import STEPS, final_state, rows
from fake_wandb import FakeWandb, fake_wandb
from test_preemption import ROOT, arguments, training
from wandb_files import records as records_of
from wandb_files import service_of, starts, values_of
from wandb_helpers import (
    assert_server_has_each_step_once,
    assert_upload_has_each_step_once,
    assert_wandb_has_each_step_once,
    online,
)

from lit_vae.tools.upload import sync

OFFLINE = {"WANDB_MODE": "offline"}
SELDOM = "--last_checkpoint.every_n_steps=6"
WARNING = "training goes on without it. All numbers are in"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with two pictures at every validation, of which there is one after 22 steps."""
    content = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    content["trainer"]["callbacks"] = [{"class_path": "callbacks.Samples"}, {"class_path": "callbacks.Reconstructions"}]
    content["trainer"]["check_val_every_n_epoch"] = 1
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(config: Path, run: Path, *more: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lit_vae.cli", *arguments(config, run), SELDOM, *more]
    return warm.run(command, env={**os.environ, **variables}, capture_output=True)


def assert_warned_and_finished(code: int, said: str, run: Path, what: str) -> None:
    assert code == 0, said
    assert said.count(WARNING) == 1
    assert f"W&B failed at {what}" in said
    assert "Traceback" not in said
    assert [int(row["step"]) for row in rows(run)] == list(range(STEPS))
    assert final_state(run)["global_step"] == STEPS


def last_step(run: Path) -> int:
    """The last step that W&B has written of the last start, which may be at work."""
    rows = [values_of(record) for record in records_of(starts(run)[-1])]
    return max((int(row["_step"]) for row in rows if row), default=-1)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_and_resumed_wandb_has_no_seam(config: Path, tmp_path: Path) -> None:
    """W&B lacks steps before the checkpoint that is gone on from."""
    run = tmp_path / "run"
    with training([*arguments(config, run), SELDOM], run, **OFFLINE) as process:
        process.kill()
        process.wait()
    assert last_step(run) < final_state(run)["global_step"] - 1, "the case is not met"
    assert fit(config, run, **OFFLINE).returncode == 0
    assert_wandb_has_each_step_once(run)


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    with fake_wandb() as (state, _):
        yield state


@pytest.mark.slow
def test_killed_when_wandb_was_ahead_it_has_no_seam(config: Path, tmp_path: Path, server: FakeWandb) -> None:
    """The server has steps after the checkpoint from which the run is resumed."""
    run, seldom = tmp_path / "run", "--last_checkpoint.every_n_steps=60"
    endless = "--trainer.max_steps=5000"  # W&B sends when it likes to: the training outlasts that
    with training([*arguments(config, run), seldom, endless], run, **online(server.address)) as process:
        wait_for(lambda: last_on(server) > final_state(run)["global_step"] + 3, 200.0)
        process.kill()
        process.wait()
    wait_until_quiet(server)
    assert final_state(run)["global_step"] + 3 < last_on(server)
    steps = last_on(server) + 20
    resumed = fit(config, run, seldom, f"--trainer.max_steps={steps}", **online(server.address))
    assert resumed.returncode == 0, resumed.stderr
    assert_server_has_each_step_once(run, server)
    assert len(rows(run)) == steps


@pytest.mark.slow
def test_killed_offline_and_resumed_online_the_server_has_all(config: Path, tmp_path: Path, server: FakeWandb) -> None:
    """And offline once more, with an upload before and after: an upload in between sends nothing twice."""
    run = tmp_path / "run"
    with training([*arguments(config, run), SELDOM], run, **OFFLINE) as process:
        process.kill()
        process.wait()
    assert not server.rows
    assert fit(config, run, **online(server.address)).returncode == 0
    assert_server_has_each_step_once(run, server)
    longer = fit(config, run, "--trainer.max_steps=60", **OFFLINE)
    assert longer.returncode == 0, longer.stderr
    assert len(rows(run)) == 60
    with pytest.MonkeyPatch.context() as patch:
        for name, value in online(server.address).items():
            patch.setenv(name, value)
        for _ in range(2):
            sync([str(run)])
            assert_server_has_each_step_once(run, server)


def last_on(server: FakeWandb) -> int:
    return max((row["_step"] for found in server.rows.values() for row in found), default=-1)


def wait_until_quiet(server: FakeWandb) -> None:
    """W&B's process outlives a training that is killed by a moment."""
    before = None
    while before != (before := last_on(server)):
        time.sleep(3.0)


@pytest.mark.slow
def test_preempted_and_cut_in_half_wandb_has_no_seam(config: Path, tmp_path: Path) -> None:
    """Gone on with after a preemption, and then from a checkpoint that lies before what W&B has."""
    run = tmp_path / "run"
    with training([*arguments(config, run), SELDOM], run, **OFFLINE) as process:
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=120)
    assert process.returncode == 75
    assert fit(config, run, **OFFLINE).returncode == 0
    assert_wandb_has_each_step_once(run)
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    done = fit(config, run, **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert "training resumes from" in done.stderr
    assert_wandb_has_each_step_once(run)
    assert [start.name.rpartition("-")[2] for start in starts(run)] == [(run / "wandb/run_id").read_text().strip()] * 3


@pytest.mark.slow
def test_the_service_is_killed_in_mid_training(config: Path, tmp_path: Path) -> None:
    """W&B has the rest after an upload, or after the next start."""
    run = tmp_path / "run"
    with training([*arguments(config, run), SELDOM], run, **OFFLINE) as process:
        os.kill(service_of(process.pid), signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert_warned_and_finished(process.returncode, said, run, "logging step ")
    assert_upload_has_each_step_once(run)
    assert fit(config, run, **OFFLINE).returncode == 0
    assert_wandb_has_each_step_once(run)


@pytest.mark.slow
def test_the_directory_is_removed_in_mid_training(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with training(arguments(config, run), run, **OFFLINE) as process:
        shutil.rmtree(run / "wandb")
        _, said = process.communicate(timeout=120)
    assert_warned_and_finished(process.returncode, said, run, "finishing (FileNotFoundError: its folder")


def test_the_directory_cannot_be_made(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "wandb").write_text("a file")
    done = fit(config, run, **OFFLINE)
    assert_warned_and_finished(done.returncode, done.stderr, run, "making its directory (FileExistsError: ")


@pytest.mark.slow
def test_wandb_raises_as_it_starts(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = fit(config, run, WANDB_MODE="shared", WANDB_RUN_ID="not/allowed")
    assert_warned_and_finished(done.returncode, done.stderr, run, "starting (")


@pytest.mark.slow
def test_there_is_no_server(config: Path, tmp_path: Path) -> None:
    """Nobody listens at that port; it is offline then, and the whole run is there to be uploaded."""
    run = tmp_path / "run"
    done = fit(config, run, WANDB_INIT_TIMEOUT="3", **online("http://127.0.0.1:9"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("W&B cannot be reached") == 1
    assert f"lit-vae sync {run} uploads the run later" in done.stderr
    assert_wandb_has_each_step_once(run)


@pytest.mark.slow
def test_the_service_hangs(config: Path, tmp_path: Path) -> None:
    """It takes no more and never ends: neither does training wait for it, nor its end."""
    run = tmp_path / "run"
    with training(arguments(config, run), run, **OFFLINE) as process:
        service = service_of(process.pid)
        try:
            os.kill(service, signal.SIGSTOP)
            assert process.wait(timeout=180) == 0
        finally:
            os.kill(service, signal.SIGKILL)  # or it holds the pipe
        _, said = process.communicate(timeout=60)
    assert_warned_and_finished(process.returncode, said, run, "finishing (TimeoutError: no answer within 60 seconds)")
