"""OpenMP's threads, set before torch is loaded: one for each core that this process may use, and waiting ones sleep.

By default a waiting thread spins. If another process uses the machine, the spinning thread takes the core that the
thread it waits for needs, and a small network trains several times as slowly.
"""

import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

NUMBER, POLICY = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
OURS = "LIT_VAE_THREADS"
"""What lit_vae has set `NUMBER` to. If the two are equal, a child process may change it; a user's own number stays."""
SPINNING = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""If a user has set one of these, it says how threads wait."""

PROC_GROUPS, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Cores(NamedTuple):
    """How many cores a process may use, and what limits them; empty if only the machine does."""

    number: int
    limit: str


def set_defaults() -> None:
    """Set what OpenMP reads when torch is loaded, unless the user has. Does nothing if torch is loaded already."""
    if "torch" in sys.modules:
        return
    if not any(name in os.environ for name in SPINNING):
        os.environ[POLICY] = "PASSIVE"
    if is_default():
        export(cores().number)


def is_default() -> bool:
    """Whether the user has left the number of threads to lit_vae."""
    return os.environ.get(NUMBER) in (None, "", os.environ.get(OURS))


def export(number: int) -> None:
    """Pass the number on to processes that this one starts."""
    os.environ[NUMBER] = os.environ[OURS] = str(number)


def cores(ranks: int = 1) -> Cores:
    """How many cores this process may use, after the limits of a container, of SLURM and of other ranks.

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
    """How many processes a launcher has started on this machine, and how many of the cores it has given this one."""
    tasks = _tasks_here()
    if (each := _positive("SLURM_CPUS_PER_TASK")) is not None:
        return tasks, [Cores(each, "SLURM_CPUS_PER_TASK")]
    if (node := _positive("SLURM_CPUS_ON_NODE")) is not None:
        return tasks, [Cores(max(1, node // tasks), "SLURM_CPUS_ON_NODE")]
    if (local := _positive("LOCAL_WORLD_SIZE")) is not None:
        return local, [Cores(max(1, there // local), f"{local} ranks")]
    return 1, []


def summary(number: int, limit: str) -> str:
    """One line for the log: threads, cores, what limits them, and how threads wait."""
    spinning = next((f"{name}={os.environ[name]}" for name in SPINNING if os.environ.get(name)), f"{POLICY} not set")
    return f"threads: {number} of {os.cpu_count()} cores{f' ({limit})' if limit else ''}, {spinning}"


def cgroup_quota(groups: Path = PROC_GROUPS, mounted: Path = CGROUPS) -> float | None:
    """The quota of control groups (version 1 or 2) in cores; None: no quota.

    Args:
        groups: the file that names the groups.
        mounted: where their folders are. In a container that does not see the groups above, the top one is its own.
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
    except (OSError, ValueError, ZeroDivisionError):  # there is no quota: `max` is not a number
        return None


def _tasks_here() -> int:
    """Processes that SLURM has started on this node; 1 without SLURM."""
    of_nodes = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE") or ""
    first = of_nodes.partition("(")[0].partition(",")[0]  # such as 4(x2),3
    return max(1, int(first)) if first.isdecimal() else _positive("SLURM_NTASKS_PER_NODE") or 1


def _positive(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() and int(value) > 0 else None
