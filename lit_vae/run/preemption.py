"""Being asked to stop, by a signal, Ctrl-C or a file, on any rank; stopping at the same step on all of them."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch

from lit_vae.ranks import all_agree, world_size
from lit_vae.run.errors import Interrupted, Preempted
from lit_vae.run.lock import is_first_process

STOP_FILE = "STOP"
"""Asks a training to stop when it appears in the run directory: a batch script's way, or anybody's."""

REQUEUE_FILE = "REQUEUE"
"""Left in the run directory by a training that has stopped as asked: there is more to do, and it can be."""

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
POLLING_SECONDS = 1.0

_ONCE_MORE = (
    "\ninterrupted: training saves and ends after this step, or this validation. Ctrl-C again ends it at once.\n"
)


@contextmanager
def signals_given_back() -> Iterator[None]:
    """Whoever had the signals has them again afterwards: Lightning ignores Ctrl-C once it has met one."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        _set(before)


def _set(handlers: dict[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # no other may
        for number, handler in handlers.items():
            signal.signal(number, handler)


class StopRequest:
    """Whether this run has been asked to stop, by a signal or by a file ``STOP`` in its directory.

    A signal only sets a flag. Whatever a handler did, it would do in the middle of a step that other ranks may have
    ended or not begun; a collective call from there waits for ever. The file is looked for once a second, by the first
    rank: file systems of clusters are slow to say that nothing is there.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / STOP_FILE
        self._by: str | None = None
        self._looked = -POLLING_SECONDS
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals from whoever had them; leave Ctrl-C ignored where it was: in the background."""
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        ignored = {signal.SIGINT} if self._before[signal.SIGINT] is signal.SIG_IGN else set()
        _set(dict.fromkeys(set(SIGNALS) - ignored, self._note))

    def leave(self) -> None:
        """Give the signals back."""
        _set(self._before)
        self._before = {}

    def _note(self, number: int, _: Any) -> None:
        self._by = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
            if is_first_process():
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _ONCE_MORE.encode())  # print may be at work

    def here(self, first_rank: bool) -> bool:
        """Whether this rank has been asked."""
        now = time.monotonic()
        if self._by is None and first_rank and now - self._looked >= POLLING_SECONDS:
            self._looked = now
            self._by = f"the file {self._file}" if self._file.exists() else None
        return self._by is not None

    def anywhere(self, first_rank: bool, device: torch.device) -> bool:
        """Whether any rank has been asked. A collective: all of them stop, or none."""
        asked = self.here(first_rank)
        return asked if world_size() == 1 else not all_agree(not asked, device)

    def stop(self, first_rank: bool, step: int) -> NoReturn:
        """Take the request as met, leave the mark that says so, and end training; call it when all is saved.

        Raises:
            Interrupted: it was Ctrl-C. Nobody is to requeue such a run, so there is no mark.
            Preempted: it was anything else.
        """
        interrupted = self._by == signal.SIGINT.name
        if first_rank:
            self._file.unlink(missing_ok=True)  # or the run would stop again when it is gone on with
            if not interrupted:
                self._file.with_name(REQUEUE_FILE).write_text(f"step {step}\n")
        raise (Interrupted if interrupted else Preempted)(
            f"asked to stop by {self._by or 'another rank'}: saved at step {step} in {os.fspath(self._file.parent)}."
            " The same command with --ckpt_path last goes on from there."
        )
