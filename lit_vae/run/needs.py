"""The files that a component needs before a run can start: data, weights, reference statistics.

A data module, or an ``nn.Module`` within a model, lists them in a method ``needs() -> Iterable[Need]``. A callback's
method takes the data module: ``needs(data)``. ``lit-vae prepare`` provides the files, and ``lit-vae submit`` refuses a
job that lacks one. Neither knows a component by name.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

SHOWN = 12
"""How many digits of a checksum are shown."""


class Measured(NamedTuple):
    """Size in bytes, and the kind and first digits of a checksum."""

    size: int
    checksum: str


class Need(ABC):
    """Files that a run reads: a data set, weights, or statistics that were computed before.

    Attributes:
        what: a short name of them.
        provides: what `provide` does; None: the user has to put the files there.
        blocks: whether a run fails without them; False: the run makes them itself, which takes time.
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
        """What is missing or damaged, with the remedy; None if all is well. Does not use the network."""

    @abstractmethod
    def measure(self) -> Measured:
        """Size and checksum; called only if there is no `problem`."""

    def is_damaged(self) -> bool:
        """Whether files are there in spite of the `problem`, so that `provide` does not overwrite them."""
        return False

    def provide(self) -> None:
        """Fetch or compute the files, all or none.

        Raises:
            ValueError, OSError: it failed; the message says what to do by hand.
        """
        raise ValueError(self.problem() or "")


def needs_of(component: Any, *given: Any) -> Iterable[Need]:
    """The needs of a component; none if it has no method ``needs``. A callback is given the data module."""
    needs = getattr(component, "needs", None)
    return needs(*given) if callable(needs) else ()


class NeededFile(Need):
    """A file or folder that another command makes. ``remedy`` says how, as a sentence.

    Without ``sha256`` its content is not checked.
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
    """Size and checksum of the names and sizes of many files: reading millions of files takes hours."""
    total, listing = 0, hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total += size
        listing.update(f"{file.relative_to(root)} {size}\n".encode())
    return Measured(total, f"names and sizes {listing.hexdigest()[:SHOWN]}")


def sha256(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of files, one after another."""
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: found)
    return found.hexdigest()
