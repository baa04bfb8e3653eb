"""One start of a W&B run, sent to W&B's server: as much of it as the server has not got."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from lit_vae.run.bounded import within
from lit_vae.run.wandb_records import ROW, copy, is_synced, mark_synced, records, row_of

ANSWERING = 60.0
"""Seconds that the server has to say what it has of a run."""

SENDING, SPEED = 300.0, 100_000.0
"""Seconds that an upload has in any case, and bytes a second that it must do beyond them."""

_KILLED = 1  # the exit code of a start that has left none
_SHOWN = 4  # lines of what W&B said of a failure


def step_on_server(segment: Path) -> int:
    """The last step that the server has of the run of this start; -1 where it has none.

    Raises:
        Exception: the server does not say; W&B's own error.
        TimeoutError: not in `ANSWERING` seconds.
    """
    import wandb
    from wandb.errors import CommError

    of = next((record.run for record in records(segment) if record.HasField("run")), None)
    if of is None:
        return -1

    def ask() -> int:
        path = "/".join(part for part in (of.entity, of.project, of.run_id) if part)
        try:
            return int(wandb.Api(timeout=int(ANSWERING / 3)).run(path).lastHistoryStep)
        except (CommError, ValueError) as error:
            if "could not find" in str(error).lower():
                return -1
            raise

    return within(ANSWERING, ask)


def upload(segment: Path, after: int) -> str:
    """Send what is later than step ``after``, and mark the start as sent; what went wrong, or nothing.

    W&B would add rows that the server has once more, with other steps, and takes a record without an end for a failure.
    So a copy is sent, without those rows and with an end; W&B marks it where all of it has arrived.
    """
    with tempfile.TemporaryDirectory() as folder:
        sent = Path(folder) / f"offline-{segment.name.removeprefix('offline-')}"
        copy(segment, sent, lambda record: (row := row_of(record)) is None or int(row[ROW]) > after, end=_KILLED)
        code, said = _wandb(["sync", str(sent)], Path(folder), _seconds(segment))
        if code == 0 and is_synced(sent):
            mark_synced(segment)
            return ""
    if code is None:
        said += f"\nno end within {_seconds(segment):.0f} seconds"
    lines = [line.removeprefix("wandb: ").replace("ERROR", "").strip() for line in said.splitlines()]
    return "; ".join([line for line in lines if line][-_SHOWN:]) or f"wandb sync ended with exit code {code}"


def _seconds(segment: Path) -> float:
    return SENDING + sum(path.stat().st_size for path in segment.rglob("*") if path.is_file()) / SPEED


def _wandb(arguments: list[str], folder: Path, seconds: float) -> tuple[int | None, str]:
    """W&B's own command: its exit code, none if it had to be ended, and what it said.

    `WANDB_MODE`, which is for training, does not reach it; its logs are left in ``folder``. It writes into a file: a
    pipe would be held open by the process that it has started, which is ended with it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    environment |= {"WANDB_DIR": str(folder)}
    command = [sys.executable, "-m", "wandb", *arguments]
    with tempfile.TemporaryFile("w+") as said:
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
        code = None
        try:
            code = program.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait()
        said.seek(0)
        return code, said.read()
