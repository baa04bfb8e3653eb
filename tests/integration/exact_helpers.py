"""A small run that draws noise and follows schedules, and what makes two of them the same."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEPS = 40  # of 22 steps an epoch: the end lies in the middle of the second epoch
COMMON = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", f"--trainer.max_steps={STEPS}"]


def schedule_and_ema(config: Path, tmp_path: Path, val_every: int) -> Path:
    """Write the quickstart with small networks, a KL warm-up, a schedule of the rate, EMA and dequantisation noise."""
    import yaml

    data = yaml.safe_load(config.read_text())
    data["trainer"]["callbacks"] = [{"class_path": "callbacks.EMA", "init_args": {"decay": 0.9}}]
    data["trainer"]["check_val_every_n_epoch"] = val_every
    init = data["model"]["init_args"]
    for network in ("encoder", "decoder"):
        init[network]["init_args"]["hidden"] = [32]
    warmup = {"class_path": "lit_vae.schedules.LinearWarmup", "init_args": {"steps": 30}}
    init["objective"] = {"class_path": "lit_vae.objectives.ELBO", "init_args": {"beta": warmup}}
    init["lr_scheduler"] = {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": STEPS}}
    data["data"]["init_args"]["dequantize"] = True
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def stopped_and_resumed(lightning: Callable[..., None], config: Path, tmp_path: Path) -> Path:
    """Train in one go, and again with a stop after 9 steps; both must be the same. Returns the second run."""
    straight, run = tmp_path / "straight", tmp_path / "resumed"
    lightning("fit", "--config", config, "--run_dir", straight, *COMMON)
    lightning("fit", "--config", config, "--run_dir", run, *COMMON, "--trainer.max_steps=9")
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON)
    assert_same_run(straight, run)
    return run


def final_state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_run(first: Path, second: Path) -> None:
    a, b = final_state(first), final_state(second)
    assert a["global_step"] == b["global_step"] == STEPS
    for key in {"state_dict", "current_model_state"} & a.keys():
        assert a[key].keys() == b[key].keys()
        for name in a[key]:
            assert torch.equal(a[key][name], b[key][name]), f"{key} {name}"
    for p, q in zip(
        a["optimizer_states"][0]["state"].values(), b["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(p[k], q[k]) for k in p)
    assert a["lr_schedulers"] == b["lr_schedulers"]
    assert rows(first) == rows(second)
