"""Processes forked from one that has everything imported: 0.1 s a start in place of 7 s, and nothing else shared.

A process that is forked so has its own id, session, signals, environment and exit code, and ends as Python ends. What
happens only while Python starts (``OMP_NUM_THREADS``, what is imported first) is not tried by it: such a test, and one
of each console script, starts a process of its own.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

import pytest

_context = multiprocessing.get_context("forkserver")


@cache
def _ready() -> None:
    """Start the process that all others are forked from; it finds modules by ``PYTHONPATH`` alone."""
    _context.set_forkserver_preload(["warm_imports"])  # of which none that is missing is told of
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()


def forked(function: Callable[..., Any], *args: Any) -> BaseProcess:
    """Start a process that calls a function of a module."""
    _ready()
    process = _context.Process(target=function, args=args)
    process.start()
    return process


class Popen:
    """`subprocess.Popen` of ``[sys.executable, "-m", "lit_vae.cli", ...]``, or of ``lit_vae.tools``; output is text.

    What would be piped lies in a file, and is there to be read when the process has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
        text: bool = True,
    ) -> None:
        python, minus_m, module, *arguments = command
        assert (python, minus_m, stdin, text) == (sys.executable, "-m", subprocess.DEVNULL, True)
        self.args = command
        self._files: list[IO[bytes] | None] = [_opened(stdout), _opened(stderr)]
        for file in filter(None, self._files):
            if file not in (stdout, stderr):
                weakref.finalize(self, file.close)
        self._piped = [stdout == subprocess.PIPE, stderr == subprocess.PIPE]
        out = self._files[0].fileno() if self._files[0] else 1
        err = out if stderr == subprocess.STDOUT else self._files[1].fileno() if self._files[1] else 2
        descriptors = {1: out, 2: err, **{number: number for number in pass_fds}}
        self._process = forked(
            _run, module, arguments, dict(os.environ if env is None else env), str(cwd or Path.cwd()),
            _Descriptors(descriptors), start_new_session,
        )  # fmt: skip
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        self.wait(timeout)
        out, err = (
            _content(file) if file is not None and piped else None
            for file, piped in zip(self._files, self._piped, strict=True)
        )
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Popen":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


def run(
    command: Sequence[str], *, check: bool = False, capture_output: bool = False, timeout: float = 240.0, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """`subprocess.run`, of a command that `Popen` takes."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if capture_output else {}
    process = Popen(command, **options, **piped)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    done = subprocess.CompletedProcess(command, process.wait(), out, err)
    if check:
        assert done.returncode == 0, err
    return done


def _opened(stream: Any) -> IO[bytes] | None:
    """A file for what is piped or thrown away; None: it goes where that of this process goes."""
    if stream == subprocess.PIPE:
        return tempfile.TemporaryFile()
    return open(os.devnull, "wb") if stream == subprocess.DEVNULL else stream if hasattr(stream, "fileno") else None


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class _Descriptors:
    """Open files, by the numbers that they have in the process that they are sent to."""

    def __init__(self, numbers: Mapping[int, int]) -> None:
        self._numbers = numbers

    def __getstate__(self) -> dict[str, Any]:
        return {"_sent": {number: DupFd(descriptor) for number, descriptor in self._numbers.items()}}

    def settle(self) -> None:
        for number, sent in self._sent.items():
            received = sent.detach()
            if received == number:
                continue
            assert number <= 2 or not Path(f"/proc/self/fd/{number}").exists(), f"{number} is open here already"
            os.dup2(received, number)
            os.close(received)


def _run(
    module: str, arguments: list[str], environment: dict[str, str], cwd: str, files: _Descriptors, new_session: bool
) -> None:
    """Be ``python -m module arguments``."""
    if new_session:
        os.setsid()
    files.settle()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [cwd, *given]
    site = PathFinder.find_spec("sitecustomize", given)
    if site is not None and site.loader is not None:
        site.loader.exec_module(module_from_spec(site))
    sys.argv = [str(find_spec(module).origin), *arguments]  # type: ignore[union-attr]
    sys.modules["__main__"].__spec__ = find_spec(module)  # by which Lightning starts other ranks
    try:
        import_module(module).main()
    except SystemExit:
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
