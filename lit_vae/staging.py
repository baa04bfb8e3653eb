"""Data on the disk of the node that reads them: a folder of a shared file system, copied once for each node of a job.

``slurm/train.sbatch`` runs ``python -m lit_vae.staging copy`` on each node before the training and ``remove`` after it,
where ``LIT_VAE_STAGE`` names the folder. A run is configured, recorded and named as without it: data modules alone ask
`staged` where to read.
"""

import lzma
import os
import shutil
import sys
import tarfile
import warnings
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from lit_vae.run.files import replacing

VARIABLE = "LIT_VAE_STAGE"
AT_ONCE = 8
"""Files that are copied at once: on a shared file system most of a small one's time is waiting."""

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""Of the names of tar files that Python unpacks; what stands before them is the name of the folder."""
Key = tuple[int, int]
UNREADABLE = (OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)
"""What copying and unpacking raise; `tarfile` passes on what decompression does."""


def staged(path: str | Path) -> Path:
    """Where to read ``path``: its copy on this node, if it lies within what is staged here, or itself.

    What the copy lacks, such as what was added to the folder after it was packed, is read where it is, with a warning.
    """
    source, copy = _source(), _copy()
    if source is None or copy is None or not copy.is_dir():
        return Path(path)
    try:
        local = copy / Path(path).resolve().relative_to(_folder_of(source))
    except ValueError:
        return Path(path)
    if local.exists():
        return local
    warnings.warn(f"{path} is not in the copy of {source} in {copy}, and read where it is.", stacklevel=2)
    return Path(path)


def stage() -> Path:
    """Copy what ``LIT_VAE_STAGE`` names to this node; where to.

    A tar file is unpacked; it stands for the folder of its name, which it holds with or without that name. The copy
    appears when it is whole. What an earlier start of the job has copied is not copied again.

    Raises:
        OSError: it cannot be copied; nothing is left behind.
        ValueError: nothing is to be staged, or what is neither a folder nor a tar file, or not in a job.
    """
    source, copy = _source(), _copy()
    if source is None or copy is None:
        raise ValueError(f"{VARIABLE} names nothing to stage, or this is no job: there is no SLURM_JOB_ID.")
    folder = _folder_of(source)
    _make_own(copy.parent)
    with FileLock(copy.with_name("copy.lock")):  # nodes of a test may share a disk
        if copy.is_dir():
            return copy
        partial = copy.with_name("partial")
        try:
            partial.mkdir(exist_ok=True)
            if source.is_file():
                _unpack(source, partial)
                _below_its_name(partial, folder).rename(copy)
            else:
                _copy_tree(source, partial)
                partial.rename(copy)
            shutil.rmtree(partial, ignore_errors=True)  # the names above
        except UNREADABLE as error:
            shutil.rmtree(copy.parent, ignore_errors=True)  # a disk that is full is of no use to the training
            raise OSError(str(error)) from error
    return copy


def remove() -> None:
    """Remove what `stage` has copied."""
    if (copy := _copy()) is not None:
        shutil.rmtree(copy.parent, ignore_errors=True)


def _source() -> Path | None:
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def _copy() -> Path | None:
    """``lit_vae-<job>/data`` in ``$SLURM_TMPDIR``, which some clusters have, or in ``/tmp``; None outside of a job."""
    job = os.environ.get("SLURM_JOB_ID")
    return Path(os.environ.get("SLURM_TMPDIR") or "/tmp", f"lit_vae-{job}", "data") if job else None


def _folder_of(source: Path) -> Path:
    """The folder that is staged, for a tar file the one of its name: ``data`` for ``data.tar.gz`` and ``data.tgz``.

    Raises:
        ValueError: a file whose name is that of no tar file.
    """
    resolved = source.resolve()
    if not resolved.is_file():
        return resolved
    for ending in ENDINGS:
        if resolved.name.endswith(ending):
            return resolved.with_name(resolved.name.removesuffix(ending))
    raise ValueError(f"give {VARIABLE} a folder, or a file that ends in one of {' '.join(ENDINGS)}")


def _unpack(source: Path, target: Path) -> None:
    """Unpack all of a tar file, or raise: `tarfile` takes one that is cut between two files for a shorter one.

    A whole one goes on with a block of zeros; behind that stands the checksum of what is compressed.
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

    They are stripped only where the folder's own path ends in them: ``photos/data`` is a folder within.
    """
    inner = unpacked
    while len(found := list(inner.iterdir())) == 1 and found[0].is_dir() and not found[0].is_symlink():
        inner = found[0]
        if str(folder).endswith(f"/{inner.relative_to(unpacked)}"):
            return inner
    return unpacked


def _make_own(folder: Path) -> None:
    """Make a folder that nobody else can look into, or have made before us: ``/tmp`` is everybody's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder} belongs to somebody else")


def _copy_tree(source: Path, target: Path) -> None:
    """Copy all files that are not there yet; those that are were copied whole.

    Links are followed, but not in circles. What are two names of one file are so in the copy. What is neither file nor
    folder is left out.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"there is no {source}")
    above: dict[str, frozenset[Key]] = {str(source): frozenset({_key(source)})}
    files: dict[Key, list[tuple[Path, Path]]] = defaultdict(list)
    for parent, folders, names in os.walk(source, followlinks=True):
        here, below, within = Path(parent), target / Path(parent).relative_to(source), above.pop(parent)
        folders[:] = [name for name in folders if _key(here / name) not in within]
        for name in folders:
            above[os.path.join(parent, name)] = within | {_key(here / name)}
            (below / name).mkdir(exist_ok=True)
        for name in names:
            if (here / name).is_file():
                files[_key(here / name)].append((here / name, below / name))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(_copy_file, files.values()):
            pass


def _key(path: Path) -> Key:
    """What is the same for two names of one file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _copy_file(names: list[tuple[Path, Path]]) -> None:
    """Copy one file, given by all its names here and there."""
    (source, target), *others = names
    if not target.exists():
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
    for _, other in others:
        if not other.exists():
            os.link(target, other)


def main(verb: str) -> None:
    """``copy`` or ``remove``; a copy that fails is a warning, since the training can read what is shared."""
    if verb == "remove":
        remove()
        return
    given, node = os.environ.get(VARIABLE), os.environ.get("SLURMD_NODENAME", "this node")
    try:
        print(f"{given} is copied to {stage()} on {node}", flush=True)
    except (OSError, ValueError) as error:
        print(f"warning: {given} is not copied to {node} ({error}), and read where it is.", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
