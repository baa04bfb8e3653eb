"""Downloads that are complete or absent, even if several processes download at the same time."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lit_vae.run.offline import VARIABLE, is_offline


def fetch(root: Path, name: str, complete: Callable[[], bool], download: Callable[[Path], object], remedy: str) -> None:
    """Download a data set into ``root``, unless it is there.

    If the files are there, nothing is written, not even a lock. Otherwise one process downloads into a temporary folder
    and moves the files into place when they are complete; other processes wait.

    Args:
        root: the folder of data sets.
        name: of the data set, for the lock and for messages.
        complete: tells whether all files are in ``root``.
        download: fetches the data set into the given folder, in the layout of ``root``, and verifies it.
        remedy: what to do by hand if the download fails.

    Raises:
        FileNotFoundError: the download failed, or is forbidden (`lit_vae.run.offline`).
    """
    if complete():
        return
    if is_offline():
        raise FileNotFoundError(
            f"{name}: root (={str(root)!r}) does not contain the data set, and {VARIABLE} (=1) forbids downloads. Run"
            f"  lit-vae prepare CONFIG  on a machine with internet. {remedy}"
        )
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        if complete():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as temporary:
            try:
                download(Path(temporary))
            except (OSError, RuntimeError, ValueError, ImportError) as error:
                reason = " ".join(str(error).split())  # several lines if there are several mirrors
                raise FileNotFoundError(
                    f"{name}: the download into root (={str(root)!r}) failed: {reason}. {remedy}"
                ) from error
            _move_into(Path(temporary), root)


def _move_into(source: Path, target: Path) -> None:
    """Move everything in a folder into another folder of the same file system; merge existing folders."""
    for item in sorted(source.iterdir()):
        destination = target / item.name
        if item.is_dir() and destination.is_dir():
            _move_into(item, destination)
        else:
            os.replace(item, destination)
