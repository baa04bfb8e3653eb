"""One run directory, one training."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lit_vae.run.files import remove_partial, staying

LOCK_FILE = "run.lock"
HANDED_ON = "LIT_VAE_LOCK_FD"
"""The variable that names the open lock file to a program that is to hold it on."""


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold a lock file; who inherits the open file (`handed_on`) holds it, too, and may enter here again.

    So a training whose study was killed keeps its run directory to itself until it has ended. (``filelock`` has no way
    to hand a lock on.) The file stays: who removed it would take it from under somebody who has just opened it.

    Raises:
        BlockingIOError: somebody else holds it; the message names them.
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
    """Whether somebody holds a lock file; nothing is written, and a file that is not there is not made."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def handed_on(held: IO[str]) -> dict[str, str]:
    """The environment of a program that inherits a lock which we hold."""
    return {**os.environ, HANDED_ON: str(held.fileno())}


def _inherited(path: Path) -> IO[str] | None:
    """The open lock file that whoever started us has handed on, if it is this one."""
    with suppress(KeyError, ValueError, OSError):
        descriptor = int(os.environ[HANDED_ON])
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return os.fdopen(os.dup(descriptor), "a+")
    return None


def is_first_process() -> bool:
    """Whether this process is the first of those that make up one training, by what started it.

    Asked before there are ranks: of torchrun's variables, Lightning's and SLURM's, whichever there are.
    """
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@contextmanager
def training_alone(run_dir: Path) -> Iterator[None]:
    """Keep a run directory to this training while it lasts; the first of its processes does so for all.

    Raises:
        ValueError: another one trains there, or nothing can be written there.
    """
    if not is_first_process():
        yield
        return
    holding = locked(run_dir / LOCK_FILE)
    try:
        holding.__enter__()
    except BlockingIOError as error:
        raise ValueError(
            f"--run_dir {run_dir}: another training is at work there ({error}). Wait for it, or end it, or give"
            " another directory; nothing was written."
        ) from None
    except OSError as error:
        raise ValueError(
            f"--run_dir {run_dir}: cannot be written to ({error}). Give a directory that can, or mend this one."
        ) from error
    try:
        remove_partial(run_dir)
        with staying(run_dir):
            yield
    finally:
        _leave_nothing(run_dir)
        holding.__exit__(None, None, None)


def _leave_nothing(run_dir: Path) -> None:
    """Remove a run directory in which nothing came to be but the lock: a mistake was found before training began."""
    if run_dir.is_dir() and [path.name for path in run_dir.iterdir()] == [LOCK_FILE]:
        (run_dir / LOCK_FILE).unlink()
        run_dir.rmdir()
