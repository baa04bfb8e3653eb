"""A real SLURM on this one machine: munged, slurmctld and two slurmd, in a folder of their own, without systemd.

Two nodes on one host, each with a port of its own and a few pretended processors. What it cannot show: GPUs, hosts that
share no disk, other versions of SLURM.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "DEADLINE"}
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]


class LocalSlurm:
    """A cluster that lives while it is entered.

    Args:
        folder: everything of it lies there, in at most 80 characters (a socket's name is short); munge wants it to be
            readable by all.
        nodes: how many, by the names 127.0.0.1, 127.0.0.2, ...: Lightning connects to a node by its name.
        extra: more lines of ``slurm.conf``, such as partitions that preempt.
    """

    def __init__(self, folder: Path, nodes: int = 2, extra: str = "") -> None:
        self.folder, self.nodes, self.extra = folder, [f"127.0.0.{i + 1}" for i in range(nodes)], extra
        self.conf = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.conf)}
        """What points sbatch, srun and squeue at it."""
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._slurmd: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "LocalSlurm":
        for name in ("state", "log", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        self.conf.write_text(self._conf())
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munge.pid", "log-file": "log/munged.log"}
        options = [f"--{option}={self.folder / name}" for option, name in (files | {"seed-file": "seed"}).items()]
        try:
            self._start("munged", "--foreground", *options)
            self.wait_until((self.folder / "munge.sock").exists, "munged")
            self._start("slurmctld", "-D", "-c", "-f", str(self.conf))
            for node in self.nodes:
                self._start_node(node)
            self.wait_until(self._up, "the nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what runs, end the daemons, leave no process."""
        if self._up():
            self.run("scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}", check=False)
            self.run("scancel", f"--user={getpass.getuser()}", check=False)
            deadline = time.monotonic() + 15.0
            while self.run("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10.0)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_until(lambda: not self.processes(), "the end of its processes")

    def run(self, program: str, *arguments: Any, check: bool = True) -> str:
        """What a program of SLURM prints about this cluster."""
        command = [shutil.which(program, path=SEARCHED) or program, *map(str, arguments)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, env=environment, check=check, stdout=subprocess.PIPE, text=True).stdout

    def states(self, job: str) -> dict[str, str]:
        """The state of a job, or of each task of an array: ``{"12_0": "COMPLETED", "12_1": "FAILED"}``."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i %T")
        return dict(line.split() for line in lines.splitlines())  # type: ignore[misc]

    def wait(self, job: str, seconds: float = 240.0) -> dict[str, str]:
        """The states of a job when all of it has ended."""
        self.wait_until(lambda: ENDED.issuperset(self.states(job).values()), f"job {job}", seconds)
        return self.states(job)

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait for something; where it does not come, the error is what SLURM says."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in (self.folder / "log").iterdir())
                raise TimeoutError(f"{what}: not there after {seconds:g} s.\n{self.run('squeue', check=False)}\n{logs}")
            time.sleep(0.1)

    def processes(self) -> list[int]:
        """What runs in its jobs, or for it: everything whose environment or command line names it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "environ").read_bytes() + b"\0" + (process / "cmdline").read_bytes()
            except OSError:  # it has ended, or is none of ours
                continue
            if int(process.name) != os.getpid() and os.fsencode(self.folder) in words:
                found.append(int(process.name))
        return found

    def fall_silent(self, node: str) -> Callable[[], None]:
        """A node that loses its power: nobody hears from it, no connection is closed, and SLURM takes it for down.

        Returns:
            What brings it back, with nothing left of what ran on it.
        """
        tasks = [pid for pid in self.processes() if f"SLURMD_NODENAME={node}".encode() in _read(pid, "environ")]
        parents = {int(_read(pid, "stat").rpartition(b")")[2].split()[1]) for pid in tasks}
        steps = [pid for pid in parents if b"slurmstepd" in _read(pid, "stat")]
        slurmd = self._slurmd[node]
        for pid in (slurmd.pid, *steps, *tasks):
            os.kill(pid, signal.SIGSTOP)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=silent")

        def come_back() -> None:
            for pid in (slurmd.pid, *steps, *tasks):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            slurmd.wait()
            self._daemons.remove(slurmd)
            self._start_node(node)
            self.run("scontrol", "update", f"nodename={node}", "state=resume")
            self.wait_until(self._up, f"node {node}")

        return come_back

    def _start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, "-f", str(self.conf))
        self._slurmd[node] = self._daemons[-1]

    def _start(self, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=SEARCHED)
        assert path is not None, f"{program} is not installed"
        with (self.folder / "log" / "start.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            daemon = subprocess.Popen(
                [path, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self._daemons.append(daemon)

    def _up(self) -> bool:
        if any(daemon.poll() is not None for daemon in self._daemons) or len(self._daemons) < 2 + len(self.nodes):
            return False
        states = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%T", check=False).split()
        return len(states) == len(self.nodes) and {"idle", "mixed", "allocated", "completing"}.issuperset(states)

    def _conf(self) -> str:
        host, folder = socket.gethostname().partition(".")[0], self.folder
        controller, *ports = _free_ports(1 + len(self.nodes))
        loopback = socket.gethostbyname(host).startswith("127.")
        lines = [
            "ClusterName=local",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            f"SlurmUser={getpass.getuser()}",
            f"SlurmdUser={getpass.getuser()}",
            *(["CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"] if loopback else []),
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"AuthInfo=socket={folder}/munge.sock,cred_expire=8",  # a job that is requeued waits that long
            f"StateSaveLocation={folder}/state",
            f"SlurmdSpoolDir={folder}/spool/%n",
            f"SlurmctldPidFile={folder}/slurmctld.pid",
            f"SlurmdPidFile={folder}/slurmd-%n.pid",
            f"SlurmctldLogFile={folder}/log/slurmctld.log",
            f"SlurmdLogFile={folder}/log/slurmd-%n.log",
            f"PlugStackConfig={folder}/plugstack.conf",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "MpiDefault=none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "SlurmdParameters=config_overrides",  # more processors than there are
            "SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=1",
            "ReturnToService=2",
            "KillWait=2",
            "MinJobAge=3600",  # squeue still knows the jobs that have ended
            *(
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=64000"
                for node, port in zip(self.nodes, ports, strict=True)
            ),
            "PartitionName=main Nodes=ALL Default=YES",
            self.extra,
        ]
        (folder / "plugstack.conf").touch()
        return "\n".join(lines) + "\n"


def _read(pid: int, name: str) -> bytes:
    """A file of a process; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now; SLURM takes them by number, so they cannot be held for it."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
