"""Published pretrained weights: their files, locations and hashes."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from lit_vae.run.needs import Measured, Need, of_contents, sha256
from lit_vae.run.offline import VARIABLE, is_offline


class Published(NamedTuple):
    """A file of weights. As in torch hub, its name ends with the beginning of its SHA-256."""

    url: str

    @property
    def file_name(self) -> str:
        """Its name in the cache."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """The beginning of its SHA-256."""
        return self.file_name.rpartition("-")[2].partition(".")[0]


PUBLISHED = {
    "vgg16": Published("https://download.pytorch.org/models/vgg16-397923af.pth"),
    "alexnet": Published("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"),
    "inception": Published(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    ),
}
"""Trained on ImageNet: the first two by torchvision; the FID's Inception of 2015, converted by torch-fidelity."""


def cache_path(name: str) -> Path:
    """Path in torch hub's cache (``TORCH_HOME``), where ``lit-vae prepare NAME`` puts the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[name].file_name


def find(name: str, path: Path | None = None) -> Path:
    """The file of ``name`` in the cache or at ``path``, after a check of its hash.

    Raises:
        ValueError: it is missing, or a different file.
    """
    published, file = PUBLISHED[name], path or cache_path(name)
    if not file.is_file():
        raise ValueError(
            f"weights of {name}: there is no {file}. Run  lit-vae prepare {name}  where there is internet (it fetches"
            f" {published.url}), or put the file there, or give its path as weights."
        )
    found = sha256([file])
    if not found.startswith(published.sha256_prefix):
        raise ValueError(
            f"weights of {name}: {file} is not {published.file_name}: its SHA-256 begins with"
            f" {found[: len(published.sha256_prefix)]}, not {published.sha256_prefix}. Delete it and run"
            f"  lit-vae prepare {name}"
        )
    return file


def fetch(name: str) -> Path:
    """Fetch the file of ``name`` into the cache, whole or not at all; replaces a damaged file.

    Raises:
        ValueError: it cannot be fetched, or this is forbidden (`lit_vae.run.offline`). It says what to do by hand.
    """
    published, path = PUBLISHED[name], cache_path(name)
    by_hand = f"Fetch it elsewhere, and put it at {path}."
    if is_offline():
        raise ValueError(
            f"{VARIABLE} (=1) forbids to fetch {published.url}. Unset it, where there is internet. {by_hand}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(published.url, str(path), hash_prefix=published.sha256_prefix)
    except (OSError, RuntimeError) as error:  # no internet, or another file
        raise ValueError(f"{published.url} could not be fetched ({error}). {by_hand}") from error
    return path


class PublishedWeights(Need):
    """The need for published weights, one of `PUBLISHED`, at a path; None: in the cache, where they can be fetched."""

    def __init__(self, name: str, path: Path | None = None) -> None:
        self.name, self.path, self.what = name, path, f"weights of {name}"
        self.provides = "fetched" if path is None else None

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.path or cache_path(self.name)

    def problem(self) -> str | None:
        """See `Need`."""
        try:
            find(self.name, self.path)
        except ValueError as error:
            return str(error).removeprefix(f"{self.what}: ")
        return None

    def measure(self) -> Measured:
        """See `Need`."""
        return of_contents([self.where])

    def provide(self) -> None:
        """See `Need`."""
        if self.provides is None:
            super().provide()
        fetch(self.name)


def path_of(weights: str) -> Path | None:
    """Path for an argument ``weights`` other than ``random``; None for the cache."""
    return None if weights == "cache" else Path(weights)


def needed(name: str, weights: str) -> Iterable[Need]:
    """Needs of a component with this argument ``weights``: none for ``random``."""
    return [] if weights == "random" else [PublishedWeights(name, path_of(weights))]
