"""If one process of a training fails, the others end soon, too, and none is left running."""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_vae.run.errors import Preempted, TrainingStopped, lost_rank
from lit_vae.run.lightning_internals import started_processes
from lit_vae.run.lock import is_first_process

TRACEBACK_SIGNAL = signal.SIGUSR2
"""Makes a process print its traceback and go on. lit_vae sends it to a rank that hangs; a user can, too."""

STARTER = "LIT_VAE_FIRST_PROCESS"
"""The variable that tells a process the id of the rank 0 that has started it."""

GRACE_SECONDS = 10.0
"""How long a failed rank may take to print its error before it is killed."""


def print_traceback_on_signal() -> None:
    """Listen to `TRACEBACK_SIGNAL`. `faulthandler` is written in C, so it works within a collective operation, too."""
    if sys.__stderr__ is not None:
        faulthandler.register(TRACEBACK_SIGNAL, file=sys.__stderr__, all_threads=False)  # signals reach the main thread


class OtherRanks(Callback):
    """If rank 0 fails, ends the processes that Lightning has started. With SLURM or torchrun, the launcher does so.

    Lightning does not end them, so one that hangs would run for ever. And Lightning kills rank 0 within five seconds
    after another rank dies, even while rank 0 prints its error. So this callback takes the processes over when an error
    occurs. It comes first in the list: what another callback does about the error may fail.
    """

    def __init__(self) -> None:
        self._started: Sequence[subprocess.Popen[bytes]] = ()
        self._starter: int | None = None
        if is_first_process():
            os.environ[STARTER] = str(os.getpid())
        elif os.environ.get(STARTER) == str(os.getppid()):
            self._starter = os.getppid()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the processes over: empty the list that Lightning watches."""
        if not isinstance(exception, Preempted):
            processes = started_processes(trainer)
            self._started = [*processes]
            processes.clear()

    def end(self, error: BaseException) -> None:
        """End the other ranks, after everything else. One that has failed gets `GRACE_SECONDS` to print its error.

        One that hangs is made to print its traceback, which shows where.
        """
        lost = lost_rank(error)
        end_themselves = lost == "gone" or isinstance(error, TrainingStopped)
        deadline = time.monotonic() + (GRACE_SECONDS if end_themselves else 0.0)
        left = [process for process in self._started if not _ends_by(process, deadline)]
        if lost is not None:
            for process in left:
                process.send_signal(TRACEBACK_SIGNAL)
            time.sleep(1.0 if left else 0.0)
        if lost == "silent" and self._starter is not None:
            os.kill(self._starter, TRACEBACK_SIGNAL)
        for process in left:
            process.kill()
            process.wait()
        for rank, process in enumerate(self._started, start=1):
            if process.returncode < 0 and process not in left:
                name = signal.Signals(-process.returncode).name
                print(f"[rank{rank}]: killed by {name} (the system does so when memory runs out)", file=sys.stderr)
        self._started = ()


def _ends_by(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    try:
        process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return False
    return True
