"""Two nodes of SLURM train as one process without it: batches of B on each are one of 2 B."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from local_slurm import LocalSlurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
FAMILIES = [
    "ae/digits",
    "vae/digits",
    "cvae/digits",
    "vqvae/digits",
    "vqvae2/cifar10",
    "kl_autoencoder/digits",
    "pixelcnn/mnist_binary",
    "pixelvae/mnist_binary",
    "feature_net/digits",
]
BATCH = 16


def short(name: str, folder: Path) -> Path:
    """The configuration for eight steps in float64 on small images, without augmentation or a trained network."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    channels = config["model"]["init_args"]["image_shape"][0]
    size = config["model"]["init_args"]["image_shape"][-1]
    values = "binary" if "binary" in name else "uint8"
    few = {"num_train": 64, "num_val": 21, "num_test": 8, "channels": channels, "size": size, "num_classes": 10}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": {**few, "values": values}}
    config["model"]["init_args"].pop("augmentation", None)
    if realism := config["model"]["init_args"].get("realism"):
        realism["init_args"]["perceptual"] = None
        realism["init_args"]["adversary"]["init_args"] |= {"weight": 0.5, "start_step": 0, "augmentations": []}
    config["trainer"] = {
        "max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu", "precision": "64-true", "callbacks": [],
    }  # fmt: skip
    path = folder / f"{name.replace('/', '_')}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_two_nodes_are_one_process(slurm: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LIT_VAE_PYTHON", sys.executable)
    configs = {name: short(name, tmp_path) for name in FAMILIES}
    jobs = {}
    for name, config in configs.items():
        script = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--output={tmp_path}/{config.stem}.log"]
        given = [tmp_path / "two" / name, "--config", config, f"--data.init_args.batch_size={BATCH // 2}"]
        jobs[name] = slurm.run("sbatch", "--parsable", *script, ROOT / "slurm" / "train.sbatch", *given).strip()
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    for name, config in configs.items():
        given = ["--config", config, "--run_dir", tmp_path / "one" / name, f"--data.init_args.batch_size={BATCH}"]
        command = [sys.executable, "-m", "lit_vae.cli", "fit", *given]
        subprocess.run(command, check=True, env=outside, cwd=tmp_path, capture_output=True)
    for name, job in jobs.items():
        assert slurm.wait(job, 300) == {job: "COMPLETED"}, (tmp_path / f"{configs[name].stem}.log").read_text()
        one, two = (tmp_path / kind / name for kind in ("one", "two"))
        first, second = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two))
        assert first["global_step"] == second["global_step"] == 8
        for key, value in first["state_dict"].items():
            torch.testing.assert_close(second["state_dict"][key], value, rtol=1e-8, atol=1e-8, msg=f"{name} {key}")
        assert len(rows(one)) == len(rows(two)) == 8
        for a, b in zip(rows(one), rows(two), strict=True):
            assert a.keys() == b.keys()
            for key in a:
                assert (a[key] == "") == (b[key] == ""), key
                # means of an epoch are logged in float32
                assert not a[key] or math.isclose(float(a[key]), float(b[key]), rel_tol=1e-6, abs_tol=1e-6), (name, key)
