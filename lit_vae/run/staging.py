"""Data on a node's own disk: a folder of a shared file system, copied once for each node of a job.

``LIT_VAE_STAGE`` names the folder, or a tar file of it. ``slurm/train.sbatch`` then runs ``python -m
lit_vae.run.staging`` on each node before the training, and removes the copies after it. Only data modules know of a
copy, by `staged`: the configuration and all records name the shared folder.
"""

import lzma
import os
import re
import shutil
import tarfile
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

VARIABLE = "LIT_VAE_STAGE"
TAR = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$")
AT_ONCE = 8
"""Files that are copied at once: on a shared file system, a small file costs mostly waiting."""

FAILURES = (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""What copying and unpacking raise; `tarfile` passes on what decompression raises."""


def staged(path: str | Path) -> Path:
    """Where to read ``path``: in the copy on this node if it lies within the staged folder, otherwise ``path`` itself.

    If the copy lacks it, for example because it was added after the folder was packed, ``path`` is read with a warning.
    """
    source, copy = os.environ.get(VARIABLE), _copy()
    if not source or copy is None or not copy.is_dir():
        return Path(path)
    try:
        local = copy / Path(path).resolve().relative_to(_folder_of(source))
    except ValueError:
        return Path(path)
    if local.exists():
        return local
    warnings.warn(f"{path} is not in the copy of {source} in {copy}, so {path} itself is read.", stacklevel=2)
    return Path(path)


def stage() -> Path:
    """Copy what ``LIT_VAE_STAGE`` names to this node, and return where the copy is. A tar file is unpacked.

    The copy appears when it is whole. If an earlier start of the job has made it, nothing is copied.

    Raises:
        OSError: copying failed; nothing is left behind.
        ValueError: nothing is to be staged, or it is neither a folder nor a tar file, or this is not a job.
    """
    source, copy = os.environ.get(VARIABLE), _copy()
    if not source or copy is None:
        raise ValueError(f"{VARIABLE} (={source or ''}) and SLURM_JOB_ID must be set: only a job has a copy.")
    folder, partial = _folder_of(source), copy.with_name("partial")
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if copy.parent.stat().st_uid != os.getuid():  # anybody may write into /tmp
        raise OSError(f"{copy.parent} belongs to somebody else")
    with FileLock(copy.with_name("copy.lock")):  # nodes of a test may share a disk
        if copy.is_dir():
            return copy
        shutil.rmtree(partial, ignore_errors=True)  # of a start that was killed
        try:
            if Path(source).is_file():
                _unpack(source, partial)
                _below_its_name(partial, folder).rename(copy)
            else:
                _copy_tree(Path(source), partial)
                partial.rename(copy)
        except FAILURES as error:
            shutil.rmtree(copy.parent, ignore_errors=True)  # the training needs the space
            raise OSError(str(error)) from error
        shutil.rmtree(partial, ignore_errors=True)  # what was above the content of a tar file
    return copy


def _copy() -> Path | None:
    """``lit_vae-<job>/data`` in ``$SLURM_TMPDIR``, which some clusters set, or in ``/tmp``; None outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    return Path(os.environ.get("SLURM_TMPDIR") or "/tmp", f"lit_vae-{job}", "data") if job else None


def _folder_of(source: str) -> Path:
    """The folder that is staged: for a tar file the folder of its name, ``data`` for ``data.tar.gz``."""
    path = Path(source).resolve()
    if path.is_file() and not TAR.search(path.name):
        raise ValueError(f"give {VARIABLE} a folder, or a file that ends in .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz")
    return path.with_name(TAR.sub("", path.name)) if path.is_file() else path


def _unpack(source: str, target: Path) -> None:
    """Unpack all of a tar file, or raise: `tarfile` accepts a file that is cut between two members.

    A whole file goes on with a block of zeros. Reading to the end compares the checksum of what is compressed.
    """
    with tarfile.open(source) as archive:
        archive.extractall(target, filter="data")
        assert archive.fileobj is not None  # it is open
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")
        while archive.fileobj.read(1 << 20):
            pass


def _below_its_name(unpacked: Path, folder: Path) -> Path:
    """Where the content of ``folder`` begins: below ``data`` or ``shared/data`` if nothing lies beside these names.

    Only the end of the folder's own path counts: in ``photos/data``, ``photos`` is part of the content.
    """
    inner = unpacked
    while len(found := list(inner.iterdir())) == 1 and found[0].is_dir() and not found[0].is_symlink():
        inner = found[0]
        if str(folder).endswith(f"/{inner.relative_to(unpacked)}"):
            return inner
    return unpacked


def _copy_tree(source: Path, target: Path) -> None:
    """Copy all files below a folder. Two names of one file become two names of one copy."""
    names: dict[tuple[int, int], list[tuple[Path, Path]]] = defaultdict(list)
    for here, there in _walk(source, target):
        names[_identity(here)].append((here, there))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(_copy_file, names.values()):
            pass


def _walk(source: Path, target: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[Path, Path]]:
    """Make the folders of ``target``, and yield each file with the place of its copy.

    Links are followed, but not in circles. What is neither file nor folder is left out.
    """
    target.mkdir()
    above |= {_identity(source)}
    for path in source.iterdir():
        if path.is_file():
            yield path, target / path.name
        elif path.is_dir() and _identity(path) not in above:
            yield from _walk(path, target / path.name, above)


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _copy_file(names: list[tuple[Path, Path]]) -> None:
    """Copy one file, given by all its names with the places of their copies."""
    (source, first), *others = names
    shutil.copyfile(source, first)
    for _, other in others:
        os.link(first, other)


def main() -> None:
    """Stage, and say so. A copy that fails is a warning, since the training can read what is shared."""
    given, node = os.environ.get(VARIABLE), os.environ.get("SLURMD_NODENAME", "this node")
    try:
        print(f"{given} is copied to {stage()} on {node}", flush=True)
    except (OSError, ValueError) as error:
        print(f"warning: {given} is not copied to {node} ({error}), so {given} itself is read.", flush=True)


if __name__ == "__main__":
    main()
