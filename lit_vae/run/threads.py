"""OpenMP's threads, decided before torch is loaded: as many as there are cores for this process, and none that spins.

A thread that waits for another one spins by default. Beside somebody else's process there is then no core on which the
other one could go on, and a small network trains several times as slowly.
"""

import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

NUMBER, POLICY = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
OURS = "LIT_VAE_THREADS"
"""Holds what we have set `NUMBER` to: a process that inherits both may set another one, and a user's own stays."""
SPINNING = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Whoever sets one of these has decided how threads wait."""


PROC_GROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Cores(NamedTuple):
    """How many cores a process may use, and what says so; empty where that is the machine alone."""

    number: int
    limit: str


def set_defaults() -> None:
    """Set what OpenMP reads as torch is loaded, where the user has not; nothing where torch is there already."""
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in SPINNING):
        os.environ[POLICY] = "PASSIVE"
    if is_ours():
        keep(cores().number)


def is_ours() -> bool:
    """Whether the number of threads is ours to set: the user has not."""
    return os.environ.get(NUMBER) in (None, "", os.environ.get(OURS))


def keep(number: int) -> None:
    """Tell the processes that this one starts."""
    os.environ[NUMBER] = os.environ[OURS] = str(number)


def cores(ranks: int = 1) -> Cores:
    """How many cores this process may use: of the machine, or of what a container, SLURM or other ranks leave it.

    Args:
        ranks: processes of one training on this machine. They share the cores, unless a launcher that started them
            (SLURM, torchrun) has given each its own.
    """
    machine = [Cores(os.cpu_count() or 1, "")]
    if hasattr(os, "sched_getaffinity"):
        machine.append(Cores(len(os.sched_getaffinity(0)), "affinity"))
    if (quota := cgroup_quota()) is not None:
        machine.append(Cores(max(1, math.ceil(quota)), "cgroup"))
    started, given = _launched(min(machine).number)
    least = min([*given, *machine], key=lambda cores: cores.number)  # of equal ones the first
    sharing = ranks // started
    return least if sharing < 2 else Cores(max(1, least.number // sharing), f"{sharing} ranks")


def _launched(there: int) -> tuple[int, list[Cores]]:
    """How many processes a launcher has started on this machine, and what it has given this one of what is there."""
    tasks = _tasks_here()
    if (each := _positive("SLURM_CPUS_PER_TASK")) is not None:
        return tasks, [Cores(each, "SLURM_CPUS_PER_TASK")]
    if (node := _positive("SLURM_CPUS_ON_NODE")) is not None:
        return tasks, [Cores(max(1, node // tasks), "SLURM_CPUS_ON_NODE")]
    if (local := _positive("LOCAL_WORLD_SIZE")) is not None:
        return local, [Cores(max(1, there // local), f"{local} ranks")]
    return 1, []


def in_words(number: int, limit: str) -> str:
    """One line for a log: how many threads there are, of how many cores, why, and whether they spin."""
    spinning = next((f"{name}={os.environ[name]}" for name in SPINNING if os.environ.get(name)), f"{POLICY} not set")
    return f"threads: {number} of {os.cpu_count()} cores{f' ({limit})' if limit else ''}, {spinning}"


def cgroup_quota(groups: Path = PROC_GROUPS, mounted: Path = CGROUPS) -> float | None:
    """Cores' worth of time that control groups, of version 1 or 2, grant this process; None: as much as there is.

    Args:
        groups: the file that names the groups.
        mounted: where their folders are. A container may not see those above its own: then the top one is its own.
    """
    found = []
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = mounted / "cpu" if controllers else mounted
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            found.append(_quota_of(top.joinpath(*names[:depth])))
    return min((quota for quota in found if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # there is none; `max` is no number
        return None


def _tasks_here() -> int:
    """Processes that SLURM has started on this node; 1 without SLURM."""
    of_nodes = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE") or ""
    first = of_nodes.partition("(")[0].partition(",")[0]  # such as 4(x2),3
    return max(1, int(first)) if first.isdecimal() else _positive("SLURM_NTASKS_PER_NODE") or 1


def _positive(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() and int(value) > 0 else None
