"""Asked to stop, killed, out of disk, cut in half: what was trained and what is resumed make the uninterrupted run."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import warm
from exact_helpers import COMMON, STEPS, assert_same_run, final_state, rows, schedule_and_ema
from torch.optim import Adam

from lit_vae.cli import main
from lit_vae.run.preemption import StopRequest
from lit_vae.run.random_state import RandomState
from lit_vae.run.resume import is_whole

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
OFTEN = "--last_checkpoint.every_n_steps=3"
TWO_RANKS = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return schedule_and_ema(ROOT / "configs" / "vae" / "digits.yaml", tmp_path_factory.mktemp("config"), 1)


@pytest.fixture(scope="module")
def straight(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("straight") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(config), f"--run_dir={run}", *COMMON, OFTEN])
        main()
    return run


def arguments(config: Path, run: Path) -> list[str]:
    return ["fit", "--config", str(config), "--run_dir", str(run), "--ckpt_path", "auto", *COMMON, OFTEN]


def status(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["status"]


@contextmanager
def training(arguments: list[str], run: Path, **variables: str) -> Iterator[warm.Popen]:
    """A training in another process, slowed down so that it can be caught; it has a checkpoint when we go on."""
    (run.parent / "path").mkdir(exist_ok=True)
    (run.parent / "path" / "sitecustomize.py").write_text(SLOW)
    variables = {"PYTHONPATH": f"{run.parent}/path:{ROOT}", **variables}
    command = [sys.executable, "-m", "lit_vae.cli", *arguments]
    environment = {**os.environ, **variables}
    process = warm.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 180
        while not (run / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate()


SLOW = """if True:
    import time
    from torch.optim import Adam
    step = Adam.step
    def slow(self, *args, **kwargs):
        time.sleep(0.1)
        return step(self, *args, **kwargs)
    Adam.step = slow
"""


@pytest.mark.parametrize(
    "ask", ["SIGUSR1", *(pytest.param(ask, marks=pytest.mark.slow) for ask in ("SIGINT", "STOP", "SIGTERM"))]
)
def test_a_training_that_is_asked_to_stop_saves_and_goes_on_exactly(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    run = tmp_path / "run"
    wandb = {"WANDB_MODE": "offline"} if ask == "SIGUSR1" else {}
    with training(arguments(config, run), run, **wandb) as process:
        if ask == "STOP":
            (run / "STOP").touch()
        else:
            process.send_signal(signal.Signals[ask])
        _, said = process.communicate(timeout=120)
    interrupted = ask == "SIGINT"
    assert process.returncode == (130 if interrupted else 75)
    step = final_state(run)["global_step"]
    assert 0 < step < STEPS
    by = f"the file {run}/STOP" if ask == "STOP" else ask
    became = "interrupted" if interrupted else "preempted"
    assert f"{became}: asked to stop by {by}: saved at step {step} in {run}." in said
    assert "Traceback" not in said
    assert status(run) == became
    marks = [path.read_text() for path in run.glob("REQUEUE")]
    assert marks == ([] if interrupted else [f"step {step}\n"])
    assert not (run / "STOP").exists()
    assert not list(run.rglob("hpc_ckpt*"))
    if wandb:
        command = [sys.executable, "-m", "lit_vae.cli", *arguments(config, run)]
        resumed = warm.run(command, env={**os.environ, **wandb}, capture_output=True)
        assert resumed.returncode == 0, resumed.stderr
        parts = [folder.name.rpartition("-")[2] for folder in (run / "wandb").glob("offline-run-*")]
        assert parts == [(run / "wandb" / "run_id").read_text().strip()] * 2  # two parts of one run
    else:
        lightning(*arguments(config, run))
    assert_same_run(straight, run)
    assert status(run) == "finished"


@contextmanager
def ctrl_c(*steps: int) -> Iterator[None]:
    """Ctrl-C while these steps are under way: twice where a step is named twice."""
    due, step = Counter(steps), Adam.step
    taken = itertools.count(1)

    def interrupted(self: Adam, *args: Any, **kwargs: Any) -> Any:
        for _ in range(due[next(taken)]):
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adam, "step", interrupted)
        yield


def test_ctrl_c_saves_and_gives_the_signal_back(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with ctrl_c(7), pytest.raises(SystemExit) as stopped:
        lightning(*arguments(config, run))
    assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    said = capfd.readouterr().err
    assert "interrupted: training saves and ends after this step, or this validation. Ctrl-C again" in said
    assert f"interrupted: asked to stop by SIGINT: saved at step 7 in {run}." in said
    assert (final_state(run)["global_step"], status(run)) == (7, "interrupted")
    assert not (run / "REQUEUE").exists()
    lightning(*arguments(config, run))
    assert_same_run(straight, run)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with ctrl_c(8, 8), pytest.raises(SystemExit) as stopped:
        lightning(*arguments(config, run))
    assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "interrupted: nothing was saved since the last checkpoint\n" in capfd.readouterr().err
    assert (final_state(run)["global_step"], status(run)) == (6, "interrupted")
    lightning(*arguments(config, run))
    assert_same_run(straight, run)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """Also where the tests run in the background, where a shell lets SIGINT be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("hook", ["setup", "on_sanity_check_start"])
def test_ctrl_c_before_training_leaves_nothing(
    lightning: Lightning, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    run, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(RandomState, hook, lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        lightning(*arguments(config, run))
    assert stopped.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert not run.exists()


@pytest.mark.parametrize("step", [22, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 21, 23))])
def test_at_any_step_an_epoch_and_its_validation_stay_whole(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Of 22 steps an epoch: a validation follows the last, and is part of what is saved."""
    run, asked = tmp_path / "run", iter([False] * (step - 1) + [True] + [False] * STEPS)
    monkeypatch.setattr(StopRequest, "here", lambda *_: next(asked))
    with pytest.raises(SystemExit) as stopped:
        lightning(*arguments(config, run))
    assert stopped.value.code == 75
    assert final_state(run)["global_step"] == step
    lightning(*arguments(config, run))
    assert_same_run(straight, run)


def test_a_request_in_the_last_step_changes_nothing(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    asked = iter([False] * (STEPS - 1) + [True])
    monkeypatch.setattr(StopRequest, "here", lambda *_: next(asked))
    lightning(*arguments(config, run))
    assert status(run) == "finished"
    assert_same_run(straight, run)
    lightning(*arguments(config, run))  # finished, started again: nothing is left to do
    assert_same_run(straight, run)
    assert status(run) == "finished"


@pytest.mark.slow
def test_gradients_that_accumulate_are_not_lost(
    lightning: Lightning, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked at every batch, and to save at every batch: it waits for the step that they make."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    more = ["--trainer.accumulate_grad_batches=2", "--last_checkpoint={every_n_steps: null, every_n_minutes: 0.00001}"]
    lightning(*arguments(config, whole)[:-1], *more)
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "here", lambda *_: True)
        for step in (1, 2, 3):
            with pytest.raises(SystemExit):
                lightning(*arguments(config, run)[:-1], *more)
            assert final_state(run)["global_step"] == step
    lightning(*arguments(config, run)[:-1], *more)
    assert_same_run(whole, run)


def test_killed_and_cut_in_half_the_one_before_is_gone_on_from(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    last, previous = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "previous.ckpt"
    with training(arguments(config, run), run) as process:
        while not previous.exists():
            time.sleep(0.01)
        time.sleep(0.2)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert is_whole(last)
    assert is_whole(previous)
    assert final_state(run)["global_step"] < STEPS
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    with pytest.warns(UserWarning, match=rf"{last} is damaged: training resumes from {previous}"):
        lightning(*arguments(config, run))
    assert_same_run(straight, run)
    assert not is_whole(run / "checkpoints" / "broken.ckpt")


def test_killed_before_its_first_checkpoint_it_starts_anew_and_no_step_is_doubled(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("# of a start that was killed\n")
    (run / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1.0\n1,0,2.0\n")
    lightning(*arguments(config, run))
    assert rows(straight) == rows(run)
    assert (run / "config.yaml").read_text() != "# of a start that was killed\n"


def test_a_full_disk_is_one_clear_error_and_keeps_the_last_checkpoint(
    lightning: Lightning, config: Path, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with training(arguments(config, run), run) as process:
        full = 10_000  # bytes that a file may have from now on: less than a checkpoint
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (full, full))
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: the run directory can no longer be written to ([Errno 27] File too large" in said
    assert "repair the directory, and resume with --ckpt_path last." in said
    assert "Traceback" not in said
    assert is_whole(run / "checkpoints" / "last.ckpt")
    assert not list((run / "checkpoints").glob(".*partial"))
    lightning(*arguments(config, run))
    assert_same_run(straight, run)


@pytest.mark.slow
def test_two_ranks_stop_at_one_step_when_one_is_asked(config: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    command = [sys.executable, "-m", "lit_vae.cli", *arguments(config, whole), *TWO_RANKS]
    warm.run(command, check=True, capture_output=True)
    with training([*arguments(config, run), *TWO_RANKS], run) as process:
        (second,) = [
            int(pid)
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if b"\0LOCAL_RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        ]
        os.kill(second, signal.SIGUSR1)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "preempted: asked to stop by another rank: saved at step " in said
    assert final_state(run)["global_step"] < STEPS
    command[command.index(str(whole))] = str(run)
    warm.run(command, check=True, capture_output=True)
    assert_same_run(whole, run)
