"""What lies below a folder: each file once, and which folders are splits."""

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
"""What a folder of a split may be called, in any case."""

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
    """Files below folders, in a fixed order, links followed: each file once, and no folder twice.

    Hidden files and folders are left out. What was found from an earlier folder is not found again from a later one.

    Args:
        root: of all these folders, which is not entered by way of a link.
    """

    def __init__(self, root: Path) -> None:
        self.left_out: list[LeftOut] = []
        self.linked: list[Path] = []
        self.root = root
        self._seen = {_key(root.stat())}

    def files(self, folder: Path) -> Iterator[Path]:
        """Find the regular files below a folder: its own, by name, then those of the folders in it."""
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
            except OSError as error:  # a link to nothing, or to itself
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
    """The folders in a folder, by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def split_folders(root: Path) -> dict[Split, Path]:
    """The folders of the splits in ``root``; empty for a folder that is not split.

    Raises:
        ValueError: a folder looks like a split and is none, one split has two folders, or it is not clear whether the
            folder is split at all.
    """
    folders = subfolders(root)
    splits: dict[Split, Path] = {}
    for folder in folders:
        split = _SPLIT_OF.get(folder.name.lower())
        if split is None:
            continue
        if split in splits and not splits[split].samefile(folder):
            raise ValueError(
                f"root (={str(root)!r}) holds both {splits[split].name} and {folder.name}, which are two names of one"
                " split. Put their images into one folder, or move one of them out of root."
            )
        splits.setdefault(split, folder)
    others = [folder for folder in folders if not any(folder.samefile(split) for split in splits.values())]
    alike = _alike([folder.name for folder in others], set(splits))
    if alike:
        raise ValueError(
            f"root (={str(root)!r}) holds {', '.join(alike)}, which look{'s' * (len(alike) == 1)} like a split and"
            f" {'is' if len(alike) == 1 else 'are'} none. The folders of splits are called {_ALLOWED}, in any case."
            " Rename what is a split, and what is none, or move it out of root."
        )
    given = ", ".join(path.name for path in splits.values())
    if splits and "train" not in splits:
        raise ValueError(
            f"root (={str(root)!r}) holds {given}, but no folder train or training: nothing to train on. Add it, or"
            " rename what is no split."
        )
    beside = [folder.name for folder in others if len(splits) == 1 and _holds_images(folder)]
    if beside:
        raise ValueError(
            f"root (={str(root)!r}) holds {given}, which is a split, beside {', '.join(beside[:3])}, which are none. If"
            f" {given} is a class or an album, rename it; else move the others into it, or out of root."
        )
    return {split: splits[split] for split in NAMES if split in splits}


class Folder(Need):
    """A folder with images in it, which somebody else fills.

    Args:
        root: the folder.
        what: whose it is.
    """

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.root

    def problem(self) -> str | None:
        """See `Need`; images are not read, since there may be millions."""
        if not self.root.is_dir():
            return no_folder(self.root)
        try:
            split_folders(self.root)
            if any(is_image_name(path) for path in Walk(self.root).files(self.root)):
                return None
        except ValueError as error:
            return str(error)
        return f"root (={str(self.root)!r}) holds no image. Put some there, or give another: data.init_args.root."

    def measure(self) -> Measured:
        """See `Need`."""
        return of_names((path for path in Walk(self.root).files(self.root) if is_image_name(path)), self.root)


def in_no_split(root: Path, splits: Mapping[Split, Path]) -> list[Path]:
    """Images, and folders of them, that lie beside the folders of the splits; nothing where there are none."""
    there = [path for path in sorted(root.iterdir()) if splits and not path.name.startswith(".") and path.exists()]
    others = [path for path in there if not any(path.samefile(split) for split in splits.values())]
    return [path for path in others if (_holds_images(path) if path.is_dir() else is_image_name(path))]


def no_folder(root: Path) -> str:
    """Say that this is not a folder."""
    return f"root (={str(root)!r}) is not a folder. Give an existing folder of images: data.init_args.root."


def class_order(names: list[str]) -> list[str]:
    """Names of classes in the order of their labels: by number if all are numbers, else by text."""
    if all(re.fullmatch(r"[-+]?[0-9]+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _alike(names: list[str], splits: set[Split]) -> list[str]:
    """Those names that are nearly those of splits, where ``splits`` are there under their own."""
    kinds = {name: [_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF] for name in names}
    several = len({kind for found in kinds.values() for kind in found}) > 1
    missed = {name for name, of in kinds.items() if any(several or (splits and kind not in splits) for kind in of)}
    return [name for name in names if _is_alike(name) or name in missed]


def _is_alike(name: str) -> bool:
    """Whether a name is a split's with a number or with words such as *set* or *old*, or is misspelt."""
    words = [word for word in _words(name) if len(word) > 1]
    of_splits = [word for word in words if _LIKE_A_SPLIT.fullmatch(word)]
    others = [word for word in words if word not in of_splits]
    misspelt = not _SLIPS.isdisjoint(words)
    return misspelt or bool(of_splits and all(re.fullmatch(f"(?:{_BESIDE})+", word) for word in others))


def _words(name: str) -> list[str]:
    """``testB_old2`` to ``test, b, old``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _slips(word: str) -> set[str]:
    """A word with two letters exchanged, one doubled, or one within it left out."""
    places = range(len(word) - 1)
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places}
    doubled = {word[: i + 1] + word[i:] for i in range(len(word))}
    short = {word[:i] + word[i + 1 :] for i in places[1:]} if len(word) > 4 else set()
    return swapped | doubled | short


_SLIPS = {slip for name in _SPLIT_OF if len(name) > 4 or name == "test" for slip in _slips(name)} - set(_SPLIT_OF)


def _check_no_splits(names: list[str], folder: Path) -> None:
    """Refuse train and test further down, which would be read as one.

    Raises:
        ValueError: naming the folder.
    """
    found = {_SPLIT_OF[name.lower()]: name for name in names if name.lower() in _SPLIT_OF}
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds {' and '.join(found.values())}, which are splits, and would be read as one. Give it as"
            " data.init_args.root; of several such folders, move the images of each split into one in root."
        )


def _key(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _holds_images(folder: Path) -> bool:
    return any(is_image_name(path) for path in Walk(folder).files(folder))


def _special(mode: int) -> str:
    kinds = {stat.S_ISFIFO: "a fifo", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    return next((name for test, name in kinds.items() if test(mode)), "neither file nor folder")
