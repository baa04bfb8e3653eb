"""``lit-vae prepare`` with names of published weights: files into torch hub's cache, without the internet."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lit_vae.features import weights
from lit_vae.run.needs import sha256

Run = Callable[..., str]
pytestmark = pytest.mark.usefixtures("published")


def test_a_file_is_fetched_once(published: Path, prepare: Run) -> None:
    cached, digest = weights.cache_path("alexnet"), sha256([published])[:12]
    assert prepare("alexnet") == f"weights of alexnet: {cached}, 0.1 MiB, sha256 {digest}: fetched\n"
    assert cached.read_bytes() == published.read_bytes()
    assert weights.find("alexnet") == cached
    published.unlink()
    assert prepare("alexnet") == f"weights of alexnet: {cached}, 0.1 MiB, sha256 {digest}: there\n"


def test_a_damaged_file_is_fetched_again(published: Path, prepare: Run, fails: Run) -> None:
    cached = weights.cache_path("alexnet")
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"half")
    assert f"{cached} is not {published.name}: its SHA-256 begins with" in fails("alexnet", "--check", "true")
    assert prepare("alexnet").endswith(": fetched\n")
    assert cached.read_bytes() == published.read_bytes()


def test_another_file_in_its_place_is_one_error_and_not_kept(published: Path, fails: Run) -> None:
    published.write_bytes(b"page of an error")
    cached = weights.cache_path("alexnet")
    error = fails("alexnet").splitlines()[-1]
    assert f"missing: {published.as_uri()} could not be fetched (" in error
    assert error.endswith(f"Fetch it elsewhere, and put it at {cached}.")
    assert not list(cached.parent.iterdir())


def test_an_unknown_name_is_refused_before_anything_is_fetched(fails: Run) -> None:
    said = fails("alexnet", "vgg17")
    assert "lit-vae prepare: there is no vgg17. Give configurations (.yaml), folders of them, or of the weights" in said
    assert not weights.cache_path("alexnet").exists()
