"""The lock that keeps two trainings out of one run directory."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lit_vae.run.files import remove_partial, staying_in_place

LOCK_FILE = "run.lock"
LOCK_DESCRIPTOR = "LIT_VAE_LOCK_FD"
"""The variable that passes the descriptor of the open lock file to a child process."""


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold a lock file. A child process that inherits the open file (`inheritable`) holds the lock, too.

    So a training whose study was killed still holds its run directory until it ends. (``filelock`` cannot pass a lock
    on.) The file is not removed: another process may just have opened it.

    Raises:
        BlockingIOError: another process holds it; the message names the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _inherited(path) or path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(f"{path} is held by process {file.read().strip() or '(unknown)'}") from None
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield file


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file. Nothing is written."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def inheritable(held: IO[str]) -> dict[str, str]:
    """The environment for a child process that inherits a held lock."""
    return {**os.environ, LOCK_DESCRIPTOR: str(held.fileno())}


def _inherited(path: Path) -> IO[str] | None:
    """The lock file that the parent process passed on, if it is this one."""
    with suppress(KeyError, ValueError, OSError):
        descriptor = int(os.environ[LOCK_DESCRIPTOR])
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return os.fdopen(os.dup(descriptor), "a+")
    return None


def is_first_process() -> bool:
    """Whether this process is rank 0, by the variables of torchrun, Lightning and SLURM: there are no ranks yet."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def exclusive_training(run_dir: Path) -> Iterator[None]:
    """Hold the lock of a run directory while this training runs. Rank 0 holds it for all ranks.

    Raises:
        ValueError: another training runs there, or the directory cannot be written to.
    """
    if not is_first_process():
        yield
        return
    holding = locked(run_dir / LOCK_FILE)
    try:
        holding.__enter__()
    except BlockingIOError as error:
        raise ValueError(
            f"--run_dir {run_dir}: another training runs there ({error}). Wait until it ends, stop it, or give another"
            " directory. Nothing was written."
        ) from None
    except OSError as error:
        raise ValueError(
            f"--run_dir {run_dir}: cannot be written to ({error}). Give another directory, or repair this one."
        ) from error
    try:
        remove_partial(run_dir)
        with staying_in_place(run_dir):
            yield
    finally:
        _remove_if_empty(run_dir)
        holding.__exit__(None, None, None)


def _remove_if_empty(run_dir: Path) -> None:
    """Remove a run directory that holds nothing but the lock: an error was found before training began."""
    if run_dir.is_dir() and [path.name for path in run_dir.iterdir()] == [LOCK_FILE]:
        (run_dir / LOCK_FILE).unlink()
        run_dir.rmdir()
