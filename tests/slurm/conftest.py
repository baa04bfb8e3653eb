"""A SLURM for the tests that need one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, missing

PREEMPTING = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=graceful Nodes=ALL GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10
"""
"""Jobs of ``urgent`` preempt the others: those of ``main`` at once, those of ``graceful`` with a signal before."""


@pytest.fixture(scope="session")
def local_slurm() -> Iterator[LocalSlurm]:
    """A cluster of two nodes on this machine; skips where SLURM is not installed."""
    if programs := missing():
        pytest.skip(f"not installed: {', '.join(programs)} (apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # pytest's own folders are closed to others, and munge minds
    folder.chmod(0o755)
    try:
        with LocalSlurm(folder, extra=PREEMPTING) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def slurm(local_slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch) -> LocalSlurm:
    """The cluster, for what this test starts."""
    for name, value in local_slurm.environment.items():
        monkeypatch.setenv(name, value)
    return local_slurm
