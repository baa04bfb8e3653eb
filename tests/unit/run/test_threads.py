"""How many threads there are, whoever limits them, and that they do not spin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_vae.run import threads
from lit_vae.run.threads import cgroup_quota, cores, summary

SAYS = (
    "import lit_vae, os, torch;"
    "print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('OMP_NUM_THREADS'), torch.get_num_threads())"
)
OF_OTHERS = ("OMP_", "GOMP_", "KMP_", "SLURM_", "LIT_VAE_", "LOCAL_")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of sixteen cores, without a limit."""
    for name in [name for name in os.environ if name.startswith(OF_OTHERS)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(threads, "cgroup_quota", lambda: None)


def started(code: str = SAYS, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **variables}, check=True
    )
    return done.stdout.split()


def test_threads_do_not_spin_and_are_those_that_slurm_gives() -> None:
    assert started(SLURM_CPUS_PER_TASK="1") == ["PASSIVE", "1", "1"]


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_users_own_settings_stay(monkeypatch: pytest.MonkeyPatch, machine: None, name: str) -> None:
    monkeypatch.setitem(os.environ, name, "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delitem(sys.modules, "torch")
    before = dict(os.environ)
    threads.set_defaults()
    assert dict(os.environ) == before


def test_a_number_of_ours_is_no_users(monkeypatch: pytest.MonkeyPatch, machine: None) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that the fixture's end removes what is set here
    monkeypatch.setenv("LIT_VAE_THREADS", "")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    threads.export(1)  # by a process that started this one
    assert threads.is_default()
    threads.set_defaults()
    assert os.environ["OMP_NUM_THREADS"] == "16"


def test_what_comes_after_torch_changes_nothing(monkeypatch: pytest.MonkeyPatch, machine: None) -> None:
    assert "torch" in sys.modules
    threads.set_defaults()
    assert not any(name.startswith(OF_OTHERS) for name in os.environ)


@pytest.mark.parametrize(
    ("variables", "ranks", "expected"),
    [
        ({}, 1, (16, "")),
        ({}, 3, (5, "3 ranks")),
        ({}, 99, (1, "99 ranks")),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "16"}, 1, (4, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_PER_TASK": "16"}, 1, (16, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_TASKS_PER_NODE": "2(x3),1"}, 2, (4, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_TASKS_PER_NODE": "1"}, 2, (4, "2 ranks")),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_TASKS_PER_NODE": "2"}, 2, (4, "SLURM_CPUS_ON_NODE")),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "4"}, 4, (2, "SLURM_CPUS_ON_NODE")),
        ({"SLURM_CPUS_PER_TASK": "64"}, 1, (16, "")),
        ({"SLURM_CPUS_PER_TASK": "none", "SLURM_TASKS_PER_NODE": "none"}, 1, (16, "")),
        ({"LOCAL_WORLD_SIZE": "4"}, 4, (4, "4 ranks")),
    ],
)
def test_cores_are_those_of_this_process(
    monkeypatch: pytest.MonkeyPatch, machine: None, variables: dict, ranks: int, expected: tuple
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cores(ranks) == expected


def test_affinity_and_containers_limit_them(monkeypatch: pytest.MonkeyPatch, machine: None) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5})
    assert cores() == (3, "affinity")
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 1.5)
    assert cores() == (2, "cgroup")
    monkeypatch.setattr(threads, "cgroup_quota", lambda: 0.2)
    assert cores() == (1, "cgroup")
    assert cores(ranks=4) == (1, "4 ranks")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../../seen/from/outside\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpuacct,cpu:/of/host\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2.0),
        ("4:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/job\n", {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "no number\n"}, None),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("", {}, None),
    ],
)
def test_quotas_of_both_versions_of_control_groups(
    tmp_path: Path, groups: str, files: dict, expected: float | None
) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mounted" / name).write_text(text)
    assert cgroup_quota(tmp_path / "groups", tmp_path / "mounted") == expected
    assert cgroup_quota(tmp_path / "absent", tmp_path / "mounted") is None


def test_the_line_of_the_log(monkeypatch: pytest.MonkeyPatch, machine: None) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    said = summary(2, "SLURM_CPUS_PER_TASK")
    assert said == "threads: 2 of 16 cores (SLURM_CPUS_PER_TASK), OMP_WAIT_POLICY=PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    assert summary(16, "") == "threads: 16 of 16 cores, OMP_WAIT_POLICY not set"
