"""``LIT_VAE_OFFLINE``: what it forbids, and what it tells other libraries."""

import os
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from lit_vae.data import MNIST
from lit_vae.features.weights import fetch
from lit_vae.run.offline import is_offline, keep_others_offline
from lit_vae.run.wandb_settings import wandb_mode

OTHERS = ("WANDB_MODE", "WANDB_ERROR_REPORTING", "HF_HUB_OFFLINE")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIT_VAE_OFFLINE", *OTHERS):
        monkeypatch.setenv(name, "")  # and put back afterwards
        del os.environ[name]


@pytest.mark.parametrize(("given", "expected"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_it_is_one_or_zero(given: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("LIT_VAE_OFFLINE", given)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # of another hub
    assert is_offline() is expected
    monkeypatch.setenv("LIT_VAE_OFFLINE", "yes")
    with pytest.raises(ValueError, match=r"LIT_VAE_OFFLINE \(=yes\) must be 1 .* or 0"):
        is_offline()


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    monkeypatch.setattr(datasets.MNIST, "download", None)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    with pytest.raises(
        FileNotFoundError, match=r"LIT_VAE_OFFLINE \(=1\) forbids.*Run  lit-vae prepare CONFIG  on a machine"
    ):
        MNIST(str(tmp_path / "data")).prepare_data()
    with pytest.raises(ValueError, match=r"LIT_VAE_OFFLINE \(=1\) forbids to fetch https.*vgg16.*Fetch it elsewhere"):
        fetch("vgg16")
    assert not (tmp_path / "data").exists()


@pytest.mark.filterwarnings("ignore:WANDB_MODE")
@pytest.mark.parametrize(("mode", "then"), [(None, "offline"), ("online", "offline"), ("disabled", "disabled")])
def test_wandb_is_offline_even_with_a_key(mode: str | None, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "of somebody")
    if mode is not None:
        monkeypatch.setenv("WANDB_MODE", mode)
    keep_others_offline()
    assert wandb_mode() == (mode or "online")
    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    keep_others_offline()
    assert wandb_mode() == then
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_who_asks_for_the_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.warns(
        UserWarning, match=r"WANDB_MODE \(=online\) is overruled by LIT_VAE_OFFLINE \(=1\): W&B is offline\."
    ):
        keep_others_offline()
