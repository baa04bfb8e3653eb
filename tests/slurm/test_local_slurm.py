"""The cluster that the other tests run on is one."""

from pathlib import Path

import pytest
from local_slurm import LocalSlurm

pytestmark = pytest.mark.slurm


def test_a_job_runs_and_its_exit_code_is_its_state(slurm: LocalSlurm, tmp_path: Path) -> None:
    out = tmp_path / "%a.out"
    job = slurm.run(
        "sbatch", "--parsable", "--array=0-1", f"--output={out}", "--wrap=hostname; exit $SLURM_ARRAY_TASK_ID"
    ).strip()
    assert slurm.wait(job) == {f"{job}_0": "COMPLETED", f"{job}_1": "FAILED"}
    assert len({(tmp_path / f"{task}.out").read_text() for task in (0, 1)}) == 1  # two nodes, one host


def test_two_nodes_take_a_task_each(slurm: LocalSlurm, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = slurm.run(
        "sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={out}",
        "--wrap=srun printenv SLURMD_NODENAME",
    ).strip()  # fmt: skip
    assert slurm.wait(job) == {job: "COMPLETED"}
    assert sorted(out.read_text().split()) == slurm.nodes


def test_a_job_that_is_cancelled_leaves_no_process(slurm: LocalSlurm, tmp_path: Path) -> None:
    before = set(slurm.processes())
    job = slurm.run("sbatch", "--parsable", f"--output={tmp_path}/out", "--wrap=sleep 600").strip()
    slurm.wait_until(lambda: slurm.states(job) == {job: "RUNNING"}, "the job")
    slurm.run("scancel", job)
    assert slurm.wait(job) == {job: "CANCELLED"}
    slurm.wait_until(lambda: set(slurm.processes()) <= before, "the end of its processes")
