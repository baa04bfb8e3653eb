"""Pretrained weights that others publish: which files, where they lie, whether they are what they should be."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch


class Published(NamedTuple):
    """A file of weights; its name ends, as torch hub has it, with the beginning of its SHA-256."""

    url: str

    @property
    def file_name(self) -> str:
        """As it is called in the cache."""
        return self.url.rpartition("/")[2]

    @property
    def sha256_prefix(self) -> str:
        """What its SHA-256 begins with."""
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
    """Where ``lit-vae prepare NAME`` puts the file: torch hub's cache (``TORCH_HOME``), which torchvision shares."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[name].file_name


def find(name: str, path: Path | None = None) -> Path:
    """The file of ``name`` in the cache, or at ``path``; its hash is checked each time.

    Raises:
        ValueError: it is not there, or is another file.
    """
    published, file = PUBLISHED[name], path or cache_path(name)
    if not file.is_file():
        raise ValueError(
            f"weights of {name}: there is no {file}. Run  lit-vae prepare {name}  where there is internet (it fetches"
            f" {published.url}), or put the file there, or give its path as weights."
        )
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(published.sha256_prefix):
        raise ValueError(
            f"weights of {name}: {file} is not {published.file_name}: its SHA-256 begins with"
            f" {found[: len(published.sha256_prefix)]}, not {published.sha256_prefix}. Delete it and run"
            f"  lit-vae prepare {name}"
        )
    return file
