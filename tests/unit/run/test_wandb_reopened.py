"""When the numbers of a test go into the W&B run of a training, and what keeps them out."""

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from lit_vae.run.lock import LOCK_FILE, locked
from lit_vae.run.wandb_reopened import numbers_of, send_numbers


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tested run; to start W&B fails."""

    def refuse(**settings: Any) -> None:
        raise ValueError("refused")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", refuse)
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings.yaml").write_text(yaml.safe_dump({"project": "p", "config": {}}))
    (tmp_path / "test_metrics.json").write_text(json.dumps({"metrics": {"test/psnr": 12.5, "test/fid": None}}))
    return tmp_path


def test_a_failure_of_wandb_is_one_warning(run: Path) -> None:
    with pytest.warns(
        UserWarning, match=rf"\(RuntimeError: starting: ValueError: refused\).*lit-vae sync {run}$"
    ) as said:
        send_numbers(run)
    assert len(said) == 1


def test_a_run_that_is_being_trained_is_left_alone(run: Path) -> None:
    """Two processes cannot write to one W&B run."""
    with locked(run / LOCK_FILE), pytest.warns(UserWarning, match=rf"is held by process .*lit-vae sync {run}$"):
        send_numbers(run)


def test_a_damaged_file_is_one_warning(run: Path) -> None:
    (run / "evaluation.json").write_text("[1]")
    with pytest.warns(UserWarning, match=r"evaluation.json contains a list.*lit-vae sync"):
        send_numbers(run)


def test_without_wandb_nothing_is_sent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        send_numbers(run)
    (run / "wandb" / "settings.yaml").unlink()  # trained without the logger
    send_numbers(run)


def test_numbers_that_are_none_are_left_out(run: Path) -> None:
    """A model that has diverged has them."""
    assert numbers_of(run) == {"test/psnr": 12.5}
