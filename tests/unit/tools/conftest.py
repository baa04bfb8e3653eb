"""``lit-vae prepare`` in this process, with a server of weights that is a folder."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_vae.features import weights
from lit_vae.tools import main

Run = Callable[..., str]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that stands on the server for ``alexnet``; the cache is empty."""
    data = b"weights" * 10_000
    file = tmp_path / "server" / f"alexnet-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    file.parent.mkdir()
    file.write_bytes(data)
    monkeypatch.setitem(weights.PUBLISHED, "alexnet", weights.Published(file.as_uri()))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return file


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What ``lit-vae prepare`` prints where all goes well."""

    def run(*args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", "prepare", *map(str, args)])
        main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def fails(prepare: Run, capsys: pytest.CaptureFixture[str]) -> Run:
    """The error where something is missing."""

    def run(*args: Any) -> str:
        with pytest.raises(SystemExit) as left:
            prepare(*args)
        assert left.value.code == 1
        return capsys.readouterr().err

    return run
