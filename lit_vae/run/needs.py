"""What a component needs on disk before a run can start, said by the component itself.

A data module and any ``nn.Module`` of a model may have a method ``needs() -> Iterable[Need]``, a callback one that is
given the data module: ``needs(data)``. ``lit-vae prepare`` provides what is needed, ``lit-vae submit`` refuses a job
that would miss it, and neither knows a component by name.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

SHOWN = 12
"""Digits of a checksum that are shown."""


class Measured(NamedTuple):
    """Size in bytes, and the beginning of a checksum with its kind."""

    size: int
    checksum: str


class Need(ABC):
    """Something that lies on disk: files of a data set, weights, numbers that were computed before.

    Attributes:
        what: it is, in a few words.
        provides: what `provide` does, or None for what must be brought by hand.
        blocks: whether a run fails without it; otherwise the run makes it by itself, and takes the time.
    """

    what: str
    provides: Literal["fetched", "computed"] | None = None
    blocks: bool = True

    @property
    @abstractmethod
    def where(self) -> Path:
        """The file or folder."""

    @abstractmethod
    def problem(self) -> str | None:
        """Why it is not there, or not what it should be, with the remedy; None if all is well. Touches no network."""

    @abstractmethod
    def measure(self) -> Measured:
        """How large it is, and a checksum; asked only where there is no `problem`."""

    def is_damaged(self) -> bool:
        """Whether what has a `problem` lies there all the same, and `provide` does not write over it."""
        return False

    def provide(self) -> None:
        """Fetch or compute it, whole or not at all.

        Raises:
            ValueError, OSError: that cannot be done; the message says what to do by hand.
        """
        raise ValueError(self.problem() or "")


def needs_of(component: Any, *given: Any) -> Iterable[Need]:
    """What a component says that it needs; one that says nothing needs nothing.

    Args:
        component: a data module, a module of a model, or a callback.
        given: to a callback, the data module.
    """
    needs = getattr(component, "needs", None)
    return needs(*given) if callable(needs) else ()


class NeededFile(Need):
    """A file, or a folder of some, that another command makes.

    Args:
        what: it is.
        path: of it.
        remedy: what makes it, as a sentence.
        sha256: of the file; None: any will do.
    """

    def __init__(self, what: str, path: str | Path, remedy: str, sha256: str | None = None) -> None:
        self.what, self.path, self.remedy, self.sha256 = what, Path(path), remedy, sha256

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.path

    def problem(self) -> str | None:
        """See `Need`."""
        if not self.path.exists():
            return f"there is no {self.path}. {self.remedy}"
        if self.sha256 is None or (found := sha256([self.path])) == self.sha256:
            return None
        return f"the SHA-256 of {self.path} begins with {found[:SHOWN]}, not {self.sha256[:SHOWN]}. {self.remedy}"

    def measure(self) -> Measured:
        """See `Need`."""
        whole = sorted(path for path in self.path.rglob("*") if path.is_file()) if self.path.is_dir() else [self.path]
        return of_contents(whole)


def of_contents(files: Sequence[Path]) -> Measured:
    """Size and SHA-256 of files, one after another."""
    return Measured(sum(file.stat().st_size for file in files), f"sha256 {sha256(files)[:SHOWN]}")


def of_names(files: Iterable[Path], root: Path) -> Measured:
    """Size of many files, and a checksum of their names and sizes alone: reading millions of them takes hours."""
    total, listing = 0, hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total += size
        listing.update(f"{file.relative_to(root)} {size}\n".encode())
    return Measured(total, f"names and sizes {listing.hexdigest()[:SHOWN]}")


def sha256(files: Sequence[Path]) -> str:
    """Of all bytes of the files, one after another."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                found.update(chunk)
    return found.hexdigest()
