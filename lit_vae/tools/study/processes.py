"""Run one program with its output in a log, and end it when this process is interrupted."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lit_vae.run.lock import inheritable

PATIENCE = ((signal.SIGINT, 600.0), (signal.SIGINT, 30.0), (signal.SIGKILL, None))
"""How a program is ended: signals, each with the seconds to wait before the next.

At the first SIGINT a training finishes its step or validation and saves; at the second it ends at once.
"""


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """SIGTERM and a closed terminal end the block as Ctrl-C does, with a KeyboardInterrupt of that message."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt(message)

    # a background job of a shell ignores SIGINT, and so would its programs; under nohup, SIGHUP stays ignored
    wanted = [signal.SIGINT, signal.SIGTERM]
    wanted += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    before = {number: signal.signal(number, interrupt) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_logged(
    command: Sequence[str], log: Path, held: IO[str], watch: Callable[[float, str], None] = lambda seconds, line: None
) -> tuple[int, str]:
    """Run a program with its output appended to a log. Returns its exit code and its output.

    The program has a process group of its own, so that Ctrl-C reaches it once, through this process. It writes into the
    file itself, so that it goes on if this process is killed. A terminal shows its last line. The program also holds
    the lock ``held`` (see `lit_vae.run.lock.locked`). ``watch`` is called each second, with the seconds since the start
    and the last line.
    """
    began = time.monotonic()
    with log.open("a") as file:
        print(f"==> {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}", file=file, flush=True)
        start = file.tell()
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=[held.fileno()], env=inheritable(held),
        )  # fmt: skip
    try:
        while not _ended(program, within=1.0):
            line = _last_line(log, start)
            _show(line)
            watch(time.monotonic() - began, line)
    except BaseException:
        print("\nwaits until what runs has saved and ended; Ctrl-C again ends it at once", flush=True)
        _end(program)
        raise
    finally:
        _show("")
    with log.open(errors="replace") as file:
        file.seek(start)
        return program.returncode, file.read()


def _ended(program: "subprocess.Popen[bytes]", within: float | None) -> bool:
    with suppress(subprocess.TimeoutExpired):
        program.wait(within)
    return program.returncode is not None


def _end(program: "subprocess.Popen[bytes]") -> None:
    """Send the signals of `PATIENCE` until the program has ended; another Ctrl-C goes to the next one at once."""
    for number, seconds in PATIENCE:
        with suppress(KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(program.pid, number)
            if _ended(program, seconds):
                return


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - 1000))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _show(text: str) -> None:
    """Replace the last line of the terminal; do nothing if stdout is a file."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print(f"\r\033[K{text[: width - 1]}", end="", flush=True)
