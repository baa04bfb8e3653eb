"""Both players of an adversarial run resume bit by bit, wherever the game was: not begun, warming up, being played."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
STEPS = 30
COMMON = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1"]


@pytest.fixture
def config(feature_net: Path, tmp_path: Path) -> Path:
    """The digits' KL autoencoder with augmentations, LeCAM, R1 and EMA; learning from step 8, felt from 16 to 24."""
    data = yaml.safe_load((ROOT / "configs" / "kl_autoencoder" / "digits.yaml").read_text())
    data["trainer"] = {"callbacks": [{"class_path": "callbacks.EMA", "init_args": {"decay": 0.9}}]}
    realism = data["model"]["init_args"]["realism"]["init_args"]
    realism["perceptual"]["init_args"]["distance"]["init_args"]["checkpoint"] = str(feature_net)
    adversary = realism["adversary"]["init_args"]
    adversary["start_step"] = 8
    adversary["weight"]["init_args"] = {"delay": 16, "steps": 8, "end": 0.5}
    adversary["penalties"] = [
        {"class_path": "lit_vae.realism.LeCAM"},
        {"class_path": "lit_vae.realism.R1", "init_args": {"every": 3}},
    ]
    adversary["augmentations"] = [{"class_path": "lit_vae.realism.Color"}, {"class_path": "lit_vae.realism.Cutout"}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [12, 20])
def test_both_players_stopped_and_resumed_are_as_if_uninterrupted(
    lightning: Lightning, config: Path, tmp_path: Path, stop_at: int
) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    lightning("fit", "--config", config, "--run_dir", straight, *COMMON, f"--trainer.max_steps={STEPS}")
    lightning("fit", "--config", config, "--run_dir", resumed, *COMMON, f"--trainer.max_steps={stop_at}")
    again = ["--ckpt_path", "last", *COMMON, f"--trainer.max_steps={STEPS}"]
    lightning("fit", "--config", config, "--run_dir", resumed, *again)
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight, resumed))
    for key in ("state_dict", "current_model_state", "optimizer_states", "global_step"):
        assert same(a[key], b[key]), key
    played = [row for row in rows(straight) if row["train/adversarial_nats"]]
    assert len(played) == STEPS - 17  # the weight is zero up to and at step 16
    assert rows(straight) == rows(resumed)
