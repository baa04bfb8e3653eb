"""``lit-vae study``: a folder of configurations to their comparison, whatever comes between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
import yaml
from study_helpers import EPOCHS, Pages, record, stand_in, write_configs
from tools_helpers import Fails, Tools

from lit_vae.tools import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``configs``, and the runs of a study of them in ``runs``; nobody writes into it."""
    folder = tmp_path_factory.mktemp("study")
    write_configs(folder / "configs")
    with stand_in() as made, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lit-vae", "study", f"{folder}/configs", "--out", f"{folder}/runs"])
        main()
    runs, out = [f"{folder}/runs/ae", f"{folder}/runs/vae"], f"{folder}/runs/comparison"
    assert made.asked == [{"runs": runs, "out": out, "checkpoint": "last", "wandb": False, "sort_by": None}]
    return folder


@pytest.fixture
def folder(studied: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, to write into."""
    return Path(shutil.copytree(studied, tmp_path / "study"))


def contents(run: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(run)): (p.stat().st_mtime_ns, p.read_bytes()) for p in run.rglob("*") if p.is_file()}


def weights(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return value


@contextmanager
def study_beside_us(*args: Any) -> Iterator[tuple[warm.Popen, int]]:
    """A study in another process and the id of its training; nothing of them is left afterwards."""
    command = [sys.executable, "-m", "lit_vae.tools", "study", *map(str, args)]
    study = warm.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    training = None
    try:
        training = wait_for(lambda: training_of(study.pid))
        yield study, training
    finally:
        for pid in (study.pid, training):
            with suppress(ProcessLookupError):
                os.kill(pid or study.pid, signal.SIGKILL)
        study.communicate()


def training_of(study: int) -> int | None:
    """The process of that parent that trains; one that is being started has no command line of its own yet."""
    for pid in Path(f"/proc/{study}/task/{study}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            if "\0fit\0" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    return None


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_study_trains_and_tests_every_configuration(studied: Path) -> None:
    for name, epochs in (("ae", 1), ("vae", EPOCHS)):
        run = studied / "runs" / name
        assert (record(run)["status"], record(run)["epoch"]) == ("finished", epochs)
        measured = json.loads((run / "test_metrics.json").read_text())
        assert measured["checkpoint"] == f"{run}/checkpoints/last.ckpt"
        log = (run / "study.log").read_text()
        assert [line.split("lit_vae.cli ")[1].split()[0] for line in log.splitlines() if "==> " in line] == [
            "fit",
            "test",
        ]


def test_what_is_done_is_not_done_again_but_the_page_is(tools: Tools, folder: Path, pages: Pages) -> None:
    before = {name: contents(folder / "runs" / name) for name in ("ae", "vae")}
    out = tools("study", folder / "configs", "--out", folder / "runs")
    assert "ae (1/2): done before\n" in out
    assert "vae (2/2): done before\n" in out
    assert {name: contents(folder / "runs" / name) for name in ("ae", "vae")} == before
    assert len(pages.asked) == 1
    assert "done before" not in tools("study", folder / "configs", "--out", folder / "runs", "--part", "page")
    out = tools("study", folder / "configs", "--out", folder / "runs", "--part", "runs", "--only", "vae")
    assert "vae (1/1): done before\n" in out
    assert len(pages.asked) == 2


def test_a_page_that_cannot_be_made_is_a_failure(fails: Fails, folder: Path, pages: Pages) -> None:
    pages.refusal = ValueError("the data are gone")
    message = fails(1, "study", folder / "configs", "--out", folder / "runs")
    assert message == f"error: {folder}/runs/comparison: the data are gone\n"


@pytest.mark.slow
def test_another_checkpoint_is_measured_without_training(tools: Tools, folder: Path, pages: Pages) -> None:
    run = folder / "runs" / "ae"
    (run / "checkpoints" / "best.ckpt").write_bytes(
        (run / "checkpoints" / "best.ckpt").read_bytes() + b"of other bytes"
    )
    trained = contents(run / "checkpoints")
    out = tools("study", folder / "configs", "--out", folder / "runs", "--checkpoint", "best", "--only", "ae")
    assert "ae (1/1): tests\n" in out
    assert "trains" not in out
    assert contents(run / "checkpoints") == trained
    assert json.loads((run / "test_metrics.json").read_text())["checkpoint"].endswith("best.ckpt")
    assert pages.asked[0]["checkpoint"] == "best"
    assert "comparison: not done are vae\n" in out  # its numbers are of its last


@pytest.mark.slow
def test_killed_and_restarted_equals_uninterrupted(
    tools: Tools, fails: Fails, folder: Path, studied: Path, pages: Pages
) -> None:
    """The study is killed, its training goes on and keeps its run to itself; then that is killed, too."""
    run = folder / "runs" / "vae"
    shutil.rmtree(run)
    args = ["study", folder / "configs", "--out", folder / "runs"]
    with study_beside_us(*args[1:], "--only", "vae") as (first, training):
        wait_for((run / "checkpoints" / "last.ckpt").exists)
        os.kill(training, signal.SIGSTOP)  # or it might come to its end before we look
        message = fails(1, *args)
        assert f"vae is running elsewhere: {run}/run.lock is held by process {training} on " in message
        assert "Wait until it ends or stop it, and run this command again." in message
        first.kill()
        first.wait()
        assert "vae is running elsewhere" in fails(1, *args)
        assert len(pages.asked) == 2
        os.kill(training, signal.SIGKILL)
        wait_for(lambda: not alive(training))
    assert record(run)["status"] == "running"
    assert weights(run).keys() == weights(studied / "runs" / "vae").keys()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] < EPOCHS - 1, "it was at its end"
    out = tools(*args)
    assert "vae (2/2): trains on\n" in out
    expected = weights(studied / "runs" / "vae")
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    assert (run / "metrics.csv").read_text() == (studied / "runs" / "vae" / "metrics.csv").read_text()
    assert pages.asked[-1]["runs"] == [f"{folder}/runs/ae", f"{folder}/runs/vae"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_ends_with_its_training_and_goes_on(
    tools: Tools, folder: Path, studied: Path, pages: Pages, number: signal.Signals
) -> None:
    run = folder / "runs" / "vae"
    shutil.rmtree(run)
    args = [folder / "configs", "--out", folder / "runs", "--only", "vae"]
    with study_beside_us(*args) as (study, training):
        wait_for((run / "run.json").exists)  # training has begun, and has saved nothing yet
        study.send_signal(number)
        out, _ = study.communicate(timeout=120)
        assert study.returncode == 130
        assert out.endswith("interrupted: the same command goes on from here\n")
        assert not alive(training)
    stopped = record(run)
    assert stopped["status"] == "interrupted"
    assert 0 < stopped["step"] < 20 * EPOCHS
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == stopped["step"]
    assert not (run / "test_metrics.json").exists()
    assert "vae (1/1): trains on\n" in tools("study", *args)
    expected = weights(studied / "runs" / "vae")
    assert all(torch.equal(value, expected[name]) for name, value in weights(run).items())
    assert (run / "metrics.csv").read_text() == (studied / "runs" / "vae" / "metrics.csv").read_text()


def test_a_failing_configuration_does_not_stop_the_others(fails: Fails, folder: Path, pages: Pages) -> None:
    config = yaml.safe_load((folder / "configs" / "ae.yaml").read_text())
    config["model"]["init_args"]["image_shape"] = [3, 8, 8]
    (folder / "configs" / "a_broken.yaml").write_text(yaml.safe_dump(config))
    message = fails(1, "study", folder / "configs", "--out", folder / "runs")
    log = folder / "runs" / "a_broken" / "study.log"
    assert message.startswith(f"error: a_broken: lightning fit failed (exit code 1). All of it is in {log}:\n  | ")
    assert "\n  | error: AE: model.image_shape (=[3, 8, 8]) is not the shape of the data's images [1, 8, 8]" in message
    assert "is not the shape of the data's images" in log.read_text()
    assert pages.asked[0]["runs"] == [f"{folder}/runs/ae", f"{folder}/runs/vae"]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_anew(tools: Tools, folder: Path, pages: Pages) -> None:
    run = folder / "runs" / "ae"
    shutil.rmtree(run / "checkpoints")
    (run / "run.json").write_text('{"status": "running"}')
    (run / "config.yaml").write_text("# of a user's\n")
    out = tools("study", folder / "configs", "--out", folder / "runs", "--only", "ae")
    (aside,) = (run / "abandoned").iterdir()
    assert f"ae (1/1): had no checkpoint to go on from; what it left is in {aside}\n" in out
    assert (aside / "config.yaml").read_text() == "# of a user's\n"
    assert record(run)["status"] == "finished"
    assert len(pages.asked[0]["runs"]) == 2


def test_a_changed_configuration_is_refused(fails: Fails, folder: Path, pages: Pages) -> None:
    path, before = folder / "configs" / "vae.yaml", contents(folder / "runs")
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 0.25
    config["trainer"]["max_epochs"] = EPOCHS  # as it was
    path.write_text(yaml.safe_dump(config))
    overlay = folder / "overlay.yaml"
    overlay.write_text("data: {init_args: {batch_size: 7}}\n")
    args = ["study", folder / "configs", "--out", folder / "runs"]
    vae = folder / "runs" / "vae"
    changed = "  model.init_args.optimizer.init_args.lr: 0.001 -> 0.25\n"
    remedy = f"  Undo that, move {vae} away, or give another --out.\n"
    head = f"{path} is not what {vae} was trained with:\n"
    assert fails(1, *args) == f"error: {head}{changed}{remedy}"
    both = fails(1, *args, "--config", overlay)
    assert f"{head}{changed}  data.init_args.batch_size: 64 -> 7\n{remedy}" in both
    assert f"ae.yaml is not what {folder}/runs/ae was trained with:\n  data.init_args.batch_size: 64 -> 7\n" in both
    assert contents(folder / "runs") == before
    assert pages.asked == []


def test_a_setting_written_out_at_its_default_is_no_change(tools: Tools, folder: Path, pages: Pages) -> None:
    path = folder / "configs" / "ae.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"]["gradient_clip_val"] = None
    config["last_checkpoint"] = {"every_n_steps": None}
    path.write_text("# another comment\n" + yaml.safe_dump(config, sort_keys=False))
    assert "ae (1/1): done before" in tools("study", folder / "configs", "--out", folder / "runs", "--only", "ae")


def test_all_mistakes_are_said_before_anything_is_trained(fails: Fails, tmp_path: Path, pages: Pages) -> None:
    configs, runs = write_configs(tmp_path / "configs"), tmp_path / "runs"
    for name, old, new in (("ae", "optimizer:", "optimzer:"), ("vae", "models.VAE", "models.VEA")):
        text = (configs / f"{name}.yaml").read_text()
        (configs / f"{name}.yaml").write_text(text.replace(old, new))
    message = fails(1, "study", configs, "--out", runs)
    assert f"error: {configs}/ae.yaml: " in message
    assert "Did you mean 'optimizer' instead of 'optimzer'?" in message
    assert f"\n{configs}/vae.yaml: " in message
    assert "Did you mean 'VAE'?" in message
    assert not runs.exists()
    message = fails(1, "study", ROOT / "configs" / "overlays", "--out", runs)
    assert "overlays/bf16.yaml: it has no model. An overlay is given with --config" in message
    assert "there is no such configuration. Give one of ae, vae." in fails(1, "study", configs, "--only", "vea")
    assert "nope.yaml" in fails(1, "study", configs, "--config", "nope.yaml")
    page = fails(1, "study", configs, "--out", runs, "--part", "page")
    assert page == f"error: {runs}/comparison: no run has a checkpoint, so there is nothing to compare.\n"
    assert not runs.exists()
