"""``slurm/train.sbatch`` on a real SLURM: whatever befalls a job, its run ends as the uninterrupted one does."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from local_slurm import LocalSlurm

from lit_vae.tools.cluster.training_job import submit as submit_verb

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
SLOW = """if True:
    import os, time
    from torch.optim import Adam
    step = Adam.step
    def slow(self, *args, **kwargs):
        time.sleep(float(os.environ.get("SECONDS_A_STEP", "0.5")))
        return step(self, *args, **kwargs)
    Adam.step = slow
"""
Submit = Callable[..., str]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small VAE that draws noise, 22 steps an epoch on one rank, with a checkpoint every other step."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "vae" / "digits.yaml").read_text())
    content["trainer"] = {"max_epochs": -1, "max_steps": STEPS, "log_every_n_steps": 1, "accelerator": "cpu"}
    content["last_checkpoint"] = {"every_n_steps": 2}
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def straight(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The uninterrupted run on so many ranks, without SLURM."""
    folder, done = tmp_path_factory.mktemp("straight"), {}

    def run(ranks: int) -> Path:
        if ranks not in done:
            done[ranks] = folder / str(ranks)
            command = [sys.executable, "-m", "lit_vae.cli", "fit", "--config", config, "--run_dir", done[ranks]]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run([*command, f"--trainer.devices={ranks}"], check=True, env=environment, capture_output=True)
        return done[ranks]

    return run


@pytest.fixture
def submit(slurm: LocalSlurm, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """A job that trains slowly into ``run``; its id."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/path:{ROOT}")
    monkeypatch.setenv("LIT_VAE_PYTHON", sys.executable)

    def run(*options: str, arguments: tuple[str, ...] = ()) -> str:
        script = ["--cpus-per-task=1", f"--output={tmp_path}/log", *options, ROOT / "slurm" / "train.sbatch"]
        command = [*script, tmp_path / "run", "--config", config, *arguments]
        return slurm.run("sbatch", "--parsable", *command).strip()

    return run


def assert_same(one: Path, other: Path) -> None:
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, other))
    assert a["global_step"] == b["global_step"] == STEPS
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())
    moments = [[v for p in c["optimizer_states"][0]["state"].values() for v in p.values()] for c in (a, b)]
    assert all(torch.equal(p, q) for p, q in zip(*moments, strict=True))
    rows = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (one, other)]
    assert rows[0] == rows[1]
    assert [int(row["step"]) for row in rows[0]] == list(range(STEPS))


def status(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["status"]


def wait_for_training(slurm: LocalSlurm, run: Path) -> None:
    slurm.wait_until((run / "checkpoints" / "last.ckpt").exists, "the first checkpoint", 120)


def test_a_job_goes_on_over_its_time_limits(
    slurm: LocalSlurm, submit: Submit, straight: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of a minute, and sixty seconds of training."""
    monkeypatch.setenv("SECONDS_A_STEP", "1.5")
    job = submit("--time=1", "--signal=B:USR1@30")
    assert slurm.wait(job, 400) == {job: "COMPLETED"}
    log = (tmp_path / "log").read_text()
    assert "requeued at step " in log
    assert log.count("preempted: asked to stop by the file") == log.count("requeued at step ")
    assert status(tmp_path / "run") == "finished"
    assert_same(straight(1), tmp_path / "run")


@pytest.mark.parametrize(("nodes", "tasks"), [(1, 2), (2, 1)])
def test_two_ranks_are_preempted_and_requeued(
    slurm: LocalSlurm, submit: Submit, straight: Callable[[int], Path], tmp_path: Path, nodes: int, tasks: int
) -> None:
    job = submit(f"--nodes={nodes}", f"--ntasks-per-node={tasks}")
    wait_for_training(slurm, tmp_path / "run")
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    assert slurm.wait(job, 400) == {job: "COMPLETED"}
    log = (tmp_path / "log").read_text()
    assert log.count("requeued at step ") == 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["ranks"] == 2
    assert log.count("GLOBAL_RANK: 0, MEMBER: 1/2") == 2  # the first rank of both starts, and nobody else
    assert "GLOBAL_RANK: 1" not in log
    others = {path.name: path.read_text() for path in (tmp_path / "run" / "logs").iterdir()}
    assert others.keys() == {f"{job}_{restart}_rank_1.log" for restart in (0, 1)}
    assert all(other.count("GLOBAL_RANK: 1, MEMBER: 2/2") == 1 for other in others.values())
    assert_same(straight(2), tmp_path / "run")


def test_a_job_that_is_cancelled_stays_so(slurm: LocalSlurm, submit: Submit, tmp_path: Path) -> None:
    job = submit()
    wait_for_training(slurm, tmp_path / "run")
    slurm.run("scancel", job)
    assert slurm.wait(job) == {job: "CANCELLED"}
    slurm.wait_until(lambda: not slurm.run("squeue", "--noheader", "--states=PD,R,CG", f"--jobs={job}"), "its end")
    assert slurm.states(job) == {job: "CANCELLED"}
    assert "requeued" not in (tmp_path / "log").read_text()


def test_a_job_that_fails_reads_failed(slurm: LocalSlurm, submit: Submit, tmp_path: Path) -> None:
    job = submit("--ntasks-per-node=2", arguments=("--model.image_shape=[3,8,8]",))
    assert slurm.wait(job) == {job: "FAILED"}
    log = (tmp_path / "log").read_text()
    assert "model.image_shape (=[3, 8, 8]) is not the shape of the data's images" in log
    assert "requeued" not in log


def test_the_traceback_of_another_rank_is_in_its_log_and_at_the_end_of_the_jobs(
    slurm: LocalSlurm, submit: Submit, tmp_path: Path
) -> None:
    """The second of two ranks fails in mid-training; the first one waits for it."""
    with (tmp_path / "path" / "sitecustomize.py").open("a") as file:
        file.write(FAILS_ON_RANK_1)
    job = submit("--ntasks-per-node=2")
    assert slurm.wait(job) == {job: "FAILED"}
    own = (tmp_path / "run" / "logs" / f"{job}_0_rank_1.log").read_text()
    assert own.rstrip().endswith("ZeroDivisionError: of rank 1")
    (_, end) = (tmp_path / "log").read_text().split(f"==> {tmp_path}/run/logs/{job}_0_rank_1.log <==")
    assert "ZeroDivisionError: of rank 1" in end


FAILS_ON_RANK_1 = """
    if os.environ.get("SLURM_PROCID") == "1":
        def fail(self, *args, **kwargs):
            raise ZeroDivisionError("of rank 1")
        Adam.step = fail
"""


def kill_job(slurm: LocalSlurm, job: str) -> None:
    """SLURM takes it for a cancellation, and sends SIGTERM first: there may be time to save, or none."""
    slurm.run("scancel", "--signal=KILL", job)


def kill_training_of_one_rank(slurm: LocalSlurm, job: str) -> None:
    """The second of two nodes is out of memory."""
    running = [pid for pid in slurm.processes() if b"SLURM_PROCID=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    assert running
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def kill_training(slurm: LocalSlurm, job: str) -> None:
    """As a node does that is out of memory."""
    running = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in slurm.processes()}
    (training,) = [pid for pid, words in running.items() if b"lit_vae.cli" in words and b"srun" not in words[0]]
    os.kill(training, signal.SIGKILL)


@pytest.mark.parametrize(
    ("kill", "nodes", "state", "left"),
    [
        (kill_job, 1, "CANCELLED", {"running", "preempted"}),
        (kill_training, 1, "FAILED", {"running"}),
        (kill_training_of_one_rank, 2, "FAILED", {"running", "failed"}),
    ],
)
def test_a_job_that_was_killed_goes_on_when_it_is_submitted_again(
    slurm: LocalSlurm,
    submit: Submit,
    straight: Callable[[int], Path],
    tmp_path: Path,
    kill: Callable[[LocalSlurm, str], None],
    nodes: int,
    state: str,
    left: set[str],
) -> None:
    job = submit(f"--nodes={nodes}")
    wait_for_training(slurm, tmp_path / "run")
    killed = time.monotonic()
    kill(slurm, job)
    assert slurm.wait(job) == {job: state}
    assert time.monotonic() - killed < 20
    assert "requeued" not in (tmp_path / "log").read_text()
    assert status(tmp_path / "run") in left
    job = submit(f"--nodes={nodes}")
    assert slurm.wait(job) == {job: "COMPLETED"}
    assert "Restoring states from the checkpoint" in (tmp_path / "log").read_text()
    assert_same(straight(nodes), tmp_path / "run")


def test_a_job_goes_on_when_one_of_its_nodes_was_lost(
    slurm: LocalSlurm, submit: Submit, straight: Callable[[int], Path], tmp_path: Path
) -> None:
    """From the last checkpoint that was due: SLURM requeues it, and the first rank is asked for none."""
    job = submit("--nodes=2")
    wait_for_training(slurm, tmp_path / "run")
    come_back = slurm.fall_silent(slurm.nodes[1])
    try:
        slurm.wait_until(lambda: slurm.states(job) == {job: "PENDING"}, "requeueing", 60)
    finally:
        come_back()
    assert slurm.wait(job, 400) == {job: "COMPLETED"}
    log = (tmp_path / "log").read_text()
    assert "preempted: asked to stop" not in log
    assert "Restoring states from the checkpoint" in log
    assert_same(straight(2), tmp_path / "run")


@pytest.mark.parametrize("partition", ["main", "graceful"])
def test_a_job_that_slurm_preempts_goes_on(
    slurm: LocalSlurm, submit: Submit, straight: Callable[[int], Path], tmp_path: Path, partition: str
) -> None:
    """Where SLURM gives it time it saves first; where not it goes on from the last checkpoint that was due."""
    job = submit("--nodes=2", f"--partition={partition}")
    wait_for_training(slurm, tmp_path / "run")
    urgent = slurm.run(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", f"--output={tmp_path}/urgent",
        "--wrap=sleep 1",
    ).strip()  # fmt: skip
    assert slurm.wait(urgent) == {urgent: "COMPLETED"}
    assert slurm.wait(job, 400) == {job: "COMPLETED"}
    log = (tmp_path / "log").read_text()
    assert log.count("preempted: asked to stop by the file") == log.count("requeued at step ")
    assert log.count("requeued at step ") == (1 if partition == "graceful" else 0)
    assert log.count("Restoring states from the checkpoint") >= 1
    assert_same(straight(2), tmp_path / "run")


def test_a_submitted_array_trains_each_seed_in_a_directory_of_its_own(
    slurm: LocalSlurm, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    site, run = tmp_path / "site.env", tmp_path / "runs"
    site.write_text("SBATCH_JOB_NAME=named-by-the-site\n")
    submit_verb(str(config), run_dir=str(run), gpus=0, ranks=2, array="3,5", batch=128, site=str(site))
    job = capsys.readouterr().out.split()[1].rstrip(",")
    assert slurm.wait(job, 400) == {f"{job}_3": "COMPLETED", f"{job}_5": "COMPLETED"}
    assert (
        slurm.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%j").split()
        == ["named-by-the-site"] * 2
    )
    for seed in (3, 5):
        assert yaml.safe_load((run / str(seed) / "config.yaml").read_text())["seed_everything"] == seed
        assert status(run / str(seed)) == "finished"
        log = (run / f"{job}_{seed}.out").read_text()
        assert f"run directory: {run}/{seed}\n" in log


def test_a_job_that_is_requeued_without_progress_ends_with_the_reason(
    slurm: LocalSlurm, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is preempted again and again before its first step is done."""
    monkeypatch.setenv("SECONDS_A_STEP", "600")
    starts = tmp_path / "run" / "restarts.json"
    job = submit()
    for in_vain in range(3):
        noted = {"job": job, "checkpoint_written_ns": None, "useless_restarts": in_vain}
        slurm.wait_until(
            lambda noted=noted: starts.exists() and json.loads(starts.read_text()) == noted, f"start {in_vain}", 120
        )
        slurm.run("scontrol", "requeue", job)
    assert slurm.wait(job) == {job: "FAILED"}
    log = (tmp_path / "log").read_text()
    assert f"error: job {job} was restarted 3 times without a new checkpoint in {tmp_path}/run/checkpoints" in log
    assert "so it ends here" in log
