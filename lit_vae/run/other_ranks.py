"""How a training of several processes ends when one of them has failed: all of them, soon, and none is left behind."""

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

WHERE_SIGNAL = signal.SIGUSR2
"""Makes a process print where it is, and go on: asked of a rank that hangs, by us or by anybody."""

STARTER = "LIT_VAE_FIRST_PROCESS"
"""The variable by which a process knows that the one that has started it is of the same training."""

GRACE_SECONDS = 10.0
"""For a rank that has failed to say why, before it is killed."""


def print_where_when_asked() -> None:
    """Listen to `WHERE_SIGNAL`. Written in C, so that it answers from within a collective, too."""
    if sys.__stderr__ is not None:
        faulthandler.register(WHERE_SIGNAL, file=sys.__stderr__, all_threads=False)  # the main thread takes signals


class OtherRanks(Callback):
    """Ends the processes that Lightning has started beside this one, if this one fails; elsewhere a launcher does so.

    Lightning leaves them: one that hangs would outlive the training for ever. And it kills this process within five
    seconds of the death of any of them, be it in the middle of its last words; so from an error on they are ours.
    First of all callbacks, since what another one does about an error may fail, too.
    """

    def __init__(self) -> None:
        self._started: Sequence[subprocess.Popen[bytes]] = ()
        self._starter: int | None = None
        if is_first_process():
            os.environ[STARTER] = str(os.getpid())
        elif os.environ.get(STARTER) == str(os.getppid()):
            self._starter = os.getppid()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the processes over from Lightning, which looks at a list of them."""
        if not isinstance(exception, Preempted):
            processes = started_processes(trainer)
            self._started = [*processes]
            processes.clear()

    def end(self, error: BaseException) -> None:
        """End them, when all else is done. Where one of them has failed it is given the time to say so.

        Where one hangs it is asked where it is, for that is what such a run has to show.
        """
        lost = lost_rank(error)
        end_themselves = lost == "gone" or isinstance(error, TrainingStopped)
        deadline = time.monotonic() + (GRACE_SECONDS if end_themselves else 0.0)
        left = [process for process in self._started if not _ends_by(process, deadline)]
        if lost is not None:
            for process in left:
                process.send_signal(WHERE_SIGNAL)
            time.sleep(1.0 if left else 0.0)
        if lost == "silent" and self._starter is not None:
            os.kill(self._starter, WHERE_SIGNAL)
        for process in left:
            process.kill()
            process.wait()
        for rank, process in enumerate(self._started, start=1):
            if process.returncode < 0 and process not in left:
                name = signal.Signals(-process.returncode).name
                print(f"[rank{rank}]: killed by {name} (a machine out of memory does so)", file=sys.stderr)
        self._started = ()


def _ends_by(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    try:
        process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        return False
    return True
