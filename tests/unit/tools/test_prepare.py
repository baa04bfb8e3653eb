"""``lit-vae prepare``: files into torch hub's cache, without the internet."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from lit_vae.features import weights
from lit_vae.tools import main


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that stands on the server for ``alexnet``; the cache is empty."""
    data = b"weights" * 10_000
    file = tmp_path / "server" / f"alexnet-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    file.parent.mkdir()
    file.write_bytes(data)
    monkeypatch.setitem(weights.PUBLISHED, "alexnet", weights.Published(file.as_uri()))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return file


def prepare(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(sys, "argv", ["lit-vae", "prepare", *names])
    main()


def test_a_file_is_fetched_once(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, "alexnet")
    cached = weights.cache_path("alexnet")
    assert capsys.readouterr().out == f"alexnet: fetched: {cached} (0.1 MiB)\n"
    assert cached.read_bytes() == published.read_bytes()
    assert weights.find("alexnet") == cached
    published.unlink()
    prepare(monkeypatch, "alexnet")
    assert capsys.readouterr().out == f"alexnet: is there already: {cached} (0.1 MiB)\n"


def test_a_damaged_file_is_fetched_again(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = weights.cache_path("alexnet")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half")
    prepare(monkeypatch, "alexnet")
    assert cached.read_bytes() == published.read_bytes()


@pytest.mark.parametrize("fault", ["no internet", "another file"])
def test_what_cannot_be_fetched_is_one_error(
    fault: str, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published.unlink() if fault == "no internet" else published.write_bytes(b"page of an error")
    with pytest.raises(SystemExit) as left:
        prepare(monkeypatch, "alexnet")
    assert left.value.code == 1
    cached = weights.cache_path("alexnet")
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: lit-vae prepare alexnet: {published.as_uri()} could not be fetched (")
    assert error.endswith(f"Fetch it elsewhere, and put it at {cached}.")
    assert not list(cached.parent.iterdir())


def test_an_unknown_name_is_refused_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        prepare(monkeypatch, "alexnet", "vgg17")
    assert left.value.code == 1
    assert "lit-vae prepare: there are no weights vgg17. Give of vgg16, alexnet, inception." in capsys.readouterr().err
    assert not weights.cache_path("alexnet").exists()
