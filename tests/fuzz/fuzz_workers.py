"""Commands in processes of their own, with limits.

A command that hangs is killed, and one that asks for too much memory meets a limit and not the machine's end.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock
from typing import Any

from warm import forked

SECONDS = 120.0
"""Of the clock until a command counts as hanging; most take one. A busy machine is no hang: see `PROCESSOR_SECONDS`."""
PROCESSOR_SECONDS = 30
MORE_MEMORY = 4 << 30
"""Bytes of address space beyond what the imports have taken."""

_LOOKING = Lock()
"""An exit code can be read once. `multiprocessing` reads those of all processes when one starts, in any thread."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: its exit code, negative for a signal; None: it was killed, since it hung.
        out: what it said on stdout.
        err: what it said on stderr.
        seconds: by the clock.
    """

    code: int | None
    out: str
    err: str
    seconds: float


def in_a_process(folder: Path, function: Callable[..., Any], *args: Any) -> Ended:
    """Call a function in a process whose current directory is ``folder``, which keeps what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.err")
    began = time.monotonic()
    with _LOOKING:
        process = forked(_begin, folder, *said, function, *args)
    ended = wait([process.sentinel], SECONDS)
    if not ended:
        process.kill()
    with _LOOKING:
        process.join()
    hung = not ended or process.exitcode == -signal.SIGXCPU
    out, err = (path.read_text(errors="replace") if path.exists() else "" for path in said)
    return Ended(None if hung else process.exitcode, out, err, time.monotonic() - began)


def _begin(folder: Path, out: Path, err: Path, function: Callable[..., Any], *args: Any) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    os.chdir(folder)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MORE_MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    function(*args)


def lightning(*args: str | Path) -> None:
    """``lightning`` with these arguments, by its own entry point."""
    from lit_vae.cli import main

    sys.argv = ["lightning", *map(str, args)]
    main()
