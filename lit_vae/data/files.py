"""Downloads that are whole or absent, whoever else downloads at the same time."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lit_vae.run.offline import VARIABLE, is_offline


def fetch(root: Path, name: str, complete: Callable[[], bool], download: Callable[[Path], object], remedy: str) -> None:
    """Download a data set into ``root``, unless it is there.

    Nothing is written, not even a lock, where the files are there already. Else one process downloads, into a temporary
    folder beside the target, and moves what is finished into place; the others wait for it.

    Args:
        root: the folder of data sets.
        name: of the data set, for the lock and for messages.
        complete: tells whether all files are in ``root``.
        download: fetches and verifies the data set into the folder that it is given, laid out as in ``root``.
        remedy: what to do by hand where the download fails.

    Raises:
        FileNotFoundError: the download failed, or is forbidden (`lit_vae.run.offline`).
    """
    if complete():
        return
    if is_offline():
        raise FileNotFoundError(
            f"{name}: root (={str(root)!r}) does not hold the data set, and {VARIABLE} (=1) forbids to fetch it. Run"
            f"  lit-vae prepare CONFIG  where there is internet, with this configuration. {remedy}"
        )
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        if complete():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as temporary:
            try:
                download(Path(temporary))
            except (OSError, RuntimeError, ValueError, ImportError) as error:
                reason = " ".join(str(error).split())  # of several mirrors it is several lines
                raise FileNotFoundError(
                    f"{name}: the download into root (={str(root)!r}) failed: {reason}. {remedy}"
                ) from error
            _move_into(Path(temporary), root)


def missing(name: str, root: Path, remedy: str) -> FileNotFoundError:
    """Return the error for a data set that is not there and may not be downloaded."""
    return FileNotFoundError(
        f"{name}: root (={str(root)!r}) does not hold the data set, and download (=False) forbids to fetch it. "
        f"{remedy} Or set data.init_args.download to true."
    )


def _move_into(source: Path, target: Path) -> None:
    """Move everything in one folder into another of the same file system; existing folders are merged."""
    for item in sorted(source.iterdir()):
        destination = target / item.name
        if item.is_dir() and destination.is_dir():
            _move_into(item, destination)
        else:
            os.replace(item, destination)
