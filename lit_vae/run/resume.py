"""The checkpoint that a run resumes from: the newest complete one."""

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lit_vae.run.checkpoints import BROKEN, CHECKPOINTS, LAST, PREVIOUS
from lit_vae.run.errors import TrainingStopped
from lit_vae.run.files import read_json, write_json

RESTARTS_FILE = "restarts.json"
MAX_RESTARTS = 3
"""After so many restarts of a job without a new checkpoint, the job ends."""


@dataclass(frozen=True)
class Source:
    """The checkpoint that a command loads; None: training starts from the beginning.

    ``broken`` is a newer checkpoint that is damaged.
    """

    path: str | None = None
    broken: Path | None = None

    def set_aside(self) -> None:
        """Rename the damaged checkpoint, so that the next save keeps the good one. Rank 0 calls it."""
        if self.broken is not None:
            self.broken.replace(self.broken.with_name(BROKEN))


def checkpoint_in(run_dir: Path, ckpt_path: str | None, fit: bool = False) -> Source:
    """The file for ``last``, ``best`` or ``auto`` of a run; other paths are returned as they are.

    With ``fit``, ``last`` and ``auto`` are the newest complete checkpoint, which may be the one before the last. If the
    run has no checkpoint, ``auto`` starts from the beginning.

    Raises:
        ValueError: there is no such file, or no complete one.
    """
    if ckpt_path is None:
        return Source()
    if ckpt_path == "auto" and not fit:
        raise ValueError("--ckpt_path auto is for fit. Give last or best.")
    folder = run_dir / CHECKPOINTS
    if fit and ckpt_path in ("last", "auto"):
        there = [path for path in (folder / LAST, folder / PREVIOUS) if path.is_file()]
        if there or ckpt_path == "auto":
            return _newest_whole(there)
    path = folder / f"{ckpt_path}.ckpt" if ckpt_path in ("last", "best") else Path(ckpt_path)
    if not path.is_file():
        raise ValueError(
            f"--ckpt_path {ckpt_path}: there is no file {path}. Give last, best or the path of a .ckpt file."
        )
    return Source(str(path))


def _newest_whole(newest_first: list[Path]) -> Source:
    whole = next((path for path in newest_first if is_whole(path)), None)
    if whole is not None:
        broken = newest_first[0] if whole != newest_first[0] else None
        if broken is not None:
            warnings.warn(
                f"{broken} is damaged: training resumes from {whole}, the one before it. The damaged one is kept as"
                f" {BROKEN}.",
                stacklevel=2,
            )
        return Source(str(whole), broken)
    if newest_first:
        raise ValueError(
            f"--ckpt_path: {' and '.join(map(str, newest_first))} damaged: there is nothing to resume from. Give the"
            " path of another checkpoint, or remove the run to start again."
        )
    return Source()


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete and unchanged: it has a table of contents, and all checksums are right."""
    try:
        with zipfile.ZipFile(checkpoint) as content:
            return content.testzip() is None
    except (zipfile.BadZipFile, EOFError, FileNotFoundError):  # rank 0 has just renamed it
        return False


def note_start(run_dir: Path, checkpoint: str | None) -> None:
    """Count the restarts of a SLURM job since its last new checkpoint, and end the job after `MAX_RESTARTS`.

    Otherwise a job whose time limit is too short for one checkpoint, or whose node always fails, is requeued for ever.

    Raises:
        TrainingStopped: there were too many.
    """
    job, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if job is None:
        return
    written = Path(checkpoint).stat().st_mtime_ns if checkpoint is not None else None
    before = read_json(run_dir / RESTARTS_FILE)
    same = restarts > 0 and (before.get("job"), before.get("checkpoint_written_ns")) == (job, written)
    useless = before.get("useless_restarts", 0) + 1 if same else 0
    write_json(run_dir / RESTARTS_FILE, {"job": job, "checkpoint_written_ns": written, "useless_restarts": useless})
    if useless >= MAX_RESTARTS:
        raise TrainingStopped(
            f"job {job} was restarted {useless} times without a new checkpoint in {run_dir / CHECKPOINTS}, so it ends"
            " here. Give it a longer --time, or save more often (--last_checkpoint.every_n_minutes)."
        )
