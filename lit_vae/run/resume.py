"""What a run goes on from: the newest of its checkpoints that is whole."""

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lit_vae.run.checkpoints import BROKEN, CHECKPOINTS, LAST, PREVIOUS
from lit_vae.run.errors import TrainingStopped
from lit_vae.run.files import read_json, write_json

RESTARTS_FILE = "restarts.json"
MOST_IN_VAIN = 3
"""Restarts of a job with no new checkpoint in between; after so many another one is not worth its queueing."""


@dataclass(frozen=True)
class Source:
    """What a command reads weights from.

    Args:
        path: the checkpoint; None: there is none, and training starts.
        broken: the newer one that it stands in for.
    """

    path: str | None = None
    broken: Path | None = None

    def set_aside(self) -> None:
        """Rename what is broken, so that the next checkpoint does not push out the good one. One process does it."""
        if self.broken is not None:
            self.broken.replace(self.broken.with_name(BROKEN))


def checkpoint_in(run_dir: Path, ckpt_path: str | None, fit: bool = False) -> Source:
    """``last``, ``best`` and ``auto`` as files of the run; other paths as they are.

    With ``fit``, ``last`` and ``auto`` are the newest checkpoint that is whole, be it the one before the last; ``auto``
    is nothing where the run has none, and training starts.

    Raises:
        ValueError: there is no such file, or none that is whole.
    """
    if ckpt_path is None:
        return Source()
    if ckpt_path == "auto" and not fit:
        raise ValueError("--ckpt_path auto is for fit: it starts where there is no checkpoint. Give last or best.")
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
                f"{broken} is not whole: training goes on from {whole}, the one before it; the broken one is kept as"
                f" {BROKEN}.",
                stacklevel=2,
            )
        return Source(str(whole), broken)
    if newest_first:
        raise ValueError(
            f"--ckpt_path: {' and '.join(map(str, newest_first))} not whole, so there is nothing to go on from. Give"
            " the path of another checkpoint, or remove the run to start anew."
        )
    return Source()


def is_whole(checkpoint: Path) -> bool:
    """Whether all that was written is there and unchanged: its table of contents, and the checksum of each part."""
    try:
        with zipfile.ZipFile(checkpoint) as content:
            return content.testzip() is None
    except (zipfile.BadZipFile, EOFError, FileNotFoundError):  # the first rank has just set it aside
        return False


def note_start(run_dir: Path, checkpoint: str | None) -> None:
    """Count how often a SLURM job was started again without having written a checkpoint since; end it if too often.

    A time limit that is shorter than the way to the first checkpoint, or a node that always fails, would otherwise
    requeue a job for ever.

    Raises:
        TrainingStopped: it is one too many.
    """
    job, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if job is None:
        return
    written = Path(checkpoint).stat().st_mtime_ns if checkpoint is not None else None
    before = read_json(run_dir / RESTARTS_FILE)
    same = restarts > 0 and (before.get("job"), before.get("checkpoint_written_ns")) == (job, written)
    in_vain = before["in_vain"] + 1 if same else 0
    write_json(run_dir / RESTARTS_FILE, {"job": job, "checkpoint_written_ns": written, "in_vain": in_vain})
    if in_vain >= MOST_IN_VAIN:
        raise TrainingStopped(
            f"job {job} was started again {in_vain} times with no new checkpoint in {run_dir / CHECKPOINTS} in between:"
            " it makes no progress and ends here. Give it more time, or let it save more often"
            " (--last_checkpoint.every_n_minutes)."
        )
