"""Finds the files below a folder, each once, and the folders of its splits."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lit_vae.data.formats import is_image_name
from lit_vae.data.splits import Split
from lit_vae.run.needs import Measured, Need, of_names

NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
"""Names of the folder of a split, in upper or lower case."""

_SPLIT_OF = {name: split for split, names in NAMES.items() for name in names}
_BESIDE = (
    "set|sets|data|dataset|datasets|image|images|imgs?|pics?|pictures|photos?|split|part|old|new|copy|of|backup|bak|orig"
    "|original|final|all|full|small|large|big|mini|tiny|raw|clean|extra|hr|lr|tmp|temp"
)
_LIKE_A_SPLIT = re.compile(f"(?:(?:{_BESIDE})*(?:{'|'.join(_SPLIT_OF)}|tests)(?:{_BESIDE})*)+")
_ALLOWED = "; ".join(" or ".join(filter(None, (", ".join(names[:-1]), names[-1]))) for names in NAMES.values())


class LeftOut(NamedTuple):
    """A file or folder that is not read."""

    path: Path
    kind: str
    reason: str


class Walk:
    """Finds the files below folders, in a fixed order, through links; each file and each folder only once.

    Hidden files and folders are ignored. A file found in one folder is not found again in a later one.

    Args:
        root: the folder above all of them; links to it are not followed.
    """

    def __init__(self, root: Path) -> None:
        self.left_out: list[LeftOut] = []
        self.linked: list[Path] = []
        self.root = root
        self._seen = {_key(root.stat())}

    def files(self, folder: Path) -> Iterator[Path]:
        """Find the regular files below a folder: first its own, by name, then those of its subfolders."""
        if folder == self.root or self._is_new(folder, folder.stat()):
            yield from self._below(folder)

    def _below(self, folder: Path) -> Iterator[Path]:
        folders = []
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except PermissionError as error:
            self._leave(folder, "without permission to read", str(error))
            return
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            try:
                found = entry.stat()
            except OSError as error:  # a broken link, or one to itself
                self._leave(path, "a link that leads nowhere", str(error))
                continue
            if stat.S_ISDIR(found.st_mode):
                folders.append((path, found))
            elif not stat.S_ISREG(found.st_mode):
                self._leave(path, "not a file", _special(found.st_mode))
            elif self._is_new(path, found):
                yield path
        _check_no_splits([path.name for path, _ in folders], folder)
        for path, found in folders:
            if self._is_new(path, found):
                yield from self._below(path)

    def _is_new(self, path: Path, found: os.stat_result) -> bool:
        if _key(found) in self._seen:
            self.linked.append(path)
            return False
        self._seen.add(_key(found))
        return True

    def _leave(self, path: Path, kind: str, reason: str) -> None:
        self.left_out.append(LeftOut(path, kind, reason))


def subfolders(folder: Path) -> list[Path]:
    """The subfolders of a folder, by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of the splits in ``root``; empty if it has none.

    Raises:
        ValueError: a folder has nearly the name of a split, a split has two folders, or it is unclear whether a folder
            is a split.
    """
    folders = subfolders(root)
    splits: dict[Split, Path] = {}
    for folder in folders:
        split = _SPLIT_OF.get(folder.name.lower())
        if split is None:
            continue
        if split in splits and not splits[split].samefile(folder):
            raise ValueError(
                f"root (={str(root)!r}) contains both {splits[split].name} and {folder.name}, two names of the same"
                " split. Put their images into one folder, or move one of them out of root."
            )
        splits.setdefault(split, folder)
    others = [folder for folder in folders if not any(folder.samefile(split) for split in splits.values())]
    alike = _look_like_splits([folder.name for folder in others], set(splits))
    if alike:
        raise ValueError(
            f"root (={str(root)!r}) contains {', '.join(alike)}, which look{'s' * (len(alike) == 1)} like a split, but"
            f" the folders of splits are called {_ALLOWED}, in upper or lower case. Rename the folder, whether it is a"
            " split or not, or move it out of root."
        )
    given = ", ".join(path.name for path in splits.values())
    if splits and "train" not in splits:
        raise ValueError(
            f"root (={str(root)!r}) contains {given}, but no folder train or training. Add one, or rename {given} if it"
            " is not a split."
        )
    beside = [folder.name for folder in others if len(splits) == 1 and _holds_images(folder)]
    if beside:
        raise ValueError(
            f"root (={str(root)!r}) contains {given}, the name of a split, and {', '.join(beside[:3])}, which are not."
            f" If {given} is a class or an album, rename it. Otherwise move the others into it, or out of root."
        )
    return {split: splits[split] for split in NAMES if split in splits}


class Folder(Need):
    """A folder of images that the user provides; ``what`` names it in messages."""

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.root

    def problem(self) -> str | None:
        """See `Need`. The images are not read: there may be millions."""
        if not self.root.is_dir():
            return no_folder(self.root)
        try:
            split_folders(self.root)
            if any(is_image_name(path) for path in Walk(self.root).files(self.root)):
                return None
        except ValueError as error:
            return str(error)
        return f"root (={str(self.root)!r}) contains no image. Add some, or change data.init_args.root."

    def measure(self) -> Measured:
        """See `Need`."""
        return of_names((path for path in Walk(self.root).files(self.root) if is_image_name(path)), self.root)


def in_no_split(root: Path, splits: Mapping[Split, Path]) -> list[Path]:
    """Images, and folders of images, beside the folders of the splits; none if there are no splits."""
    there = [path for path in sorted(root.iterdir()) if splits and not path.name.startswith(".") and path.exists()]
    others = [path for path in there if not any(path.samefile(split) for split in splits.values())]
    return [path for path in others if (_holds_images(path) if path.is_dir() else is_image_name(path))]


def no_folder(root: Path) -> str:
    """The error message for a root that is not a folder."""
    return f"root (={str(root)!r}) is not a folder. Give an existing folder of images: data.init_args.root."


def class_order(names: list[str]) -> list[str]:
    """Names of classes in the order of their labels: by number if all are numbers, else by text."""
    if all(re.fullmatch(r"[-+]?[0-9]+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _look_like_splits(names: list[str], splits: set[Split]) -> list[str]:
    """Names that resemble the name of a split, if ``splits`` are the splits with correct names."""
    kinds = {name: [_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF] for name in names}
    several = len({kind for found in kinds.values() for kind in found}) > 1
    missed = {name for name, of in kinds.items() if any(several or (splits and kind not in splits) for kind in of)}
    return [name for name in names if _looks_like_split(name) or name in missed]


def _looks_like_split(name: str) -> bool:
    """Whether a name is that of a split with a number or a word such as *set* or *old*, or is misspelt."""
    words = [word for word in _words(name) if len(word) > 1]
    of_splits = [word for word in words if _LIKE_A_SPLIT.fullmatch(word)]
    others = [word for word in words if word not in of_splits]
    misspelt = not _MISSPELLINGS.isdisjoint(words)
    return misspelt or bool(of_splits and all(re.fullmatch(f"(?:{_BESIDE})+", word) for word in others))


def _words(name: str) -> list[str]:
    """``testB_old2`` to ``test, b, old``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _misspellings(word: str) -> set[str]:
    """The word with two letters swapped, one doubled, or one left out."""
    places = range(len(word) - 1)
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places}
    doubled = {word[: i + 1] + word[i:] for i in range(len(word))}
    short = {word[:i] + word[i + 1 :] for i in places[1:]} if len(word) > 4 else set()
    return swapped | doubled | short


_MISSPELLINGS = {slip for name in _SPLIT_OF if len(name) > 4 or name == "test" for slip in _misspellings(name)} - set(
    _SPLIT_OF
)


def _check_no_splits(names: list[str], folder: Path) -> None:
    """Refuse folders of several splits below root: their images would be mixed.

    Raises:
        ValueError: naming the folder.
    """
    found = {_SPLIT_OF[name.lower()]: name for name in names if name.lower() in _SPLIT_OF}
    if len(found) > 1:
        raise ValueError(
            f"{folder} contains {' and '.join(found.values())}: the images of these splits would be mixed. Set"
            " data.init_args.root to this folder. If there are several such folders, merge each split in root."
        )


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _holds_images(folder: Path) -> bool:
    return any(is_image_name(path) for path in Walk(folder).files(folder))


def _special(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a fifo", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    return next((name for test, name in kinds.items() if test(mode)), "neither file nor folder")
