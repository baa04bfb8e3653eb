"""Steps on one and on two ranks of this machine, with gloo between them.

Two processes that do not talk say what it costs that they share a machine; the rest is what they say to each other.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.experiment import on_fake_images
from benchmarks.on_ranks import RESULT_FILE, Measured
from benchmarks.timing import Row, Seconds, interleave, ratio, spread

ROOT = Path(__file__).resolve().parents[1]
ONE, APART, TOGETHER = "one process", "two processes that do not talk", "two ranks"


class Case(NamedTuple):
    """A configuration, images a rank and step, and how many steps a training has."""

    config: str
    batch: int
    steps: int


CASES = (
    Case("vae/mnist", 128, 100),
    Case("vqvae2/cifar10", 16, 15),
    Case("pixelcnn/mnist_binary", 16, 15),
    Case("compare/bsds/perceptual_gan", 4, 6),
)
QUICK = (Case("vae/digits", 2, 2),)
ROUNDS, WARMUP = 3, 3


def run(device: torch.device, quick: bool) -> list[Row]:
    """Always on the CPU, with torch's threads for each process."""
    return [row for case in (QUICK if quick else CASES) for row in timed(case, 1 if quick else ROUNDS)]


def timed(case: Case, rounds: int) -> list[Row]:
    """A step alone, beside another, and with another."""
    with tempfile.TemporaryDirectory() as folder:

        def step(*ranks: int) -> Callable[[], float]:
            return lambda: max(measured.seconds for measured in train(case, ranks, Path(folder)))

        seconds: Seconds = interleave({ONE: step(1), APART: step(1, 1), TOGETHER: step(2)}, rounds, warm_up=False)
    section = f"step, {case.config}, {case.batch} images a rank"
    rows = [Row(section, ONE, spread(seconds[ONE]).median * 1e3, "ms")]
    for variant, baseline in ((APART, ONE), (TOGETHER, APART), (TOGETHER, ONE)):
        name = TOGETHER + ", all told" if (variant, baseline) == (TOGETHER, ONE) else variant
        value = spread(seconds[variant]).median * 1e3
        rows.append(Row(section, name, value, "ms", baseline, ratio(seconds, variant, baseline)))
    return rows


def train(case: Case, ranks: Sequence[int], folder: Path, count_flops: bool = False) -> list[Measured]:
    """Trainings of so many ranks each, at once, by the command line."""
    config = on_fake_images(case.config, case.steps, case.batch)
    config = with_random_weights(config)
    init_args = {"warmup": min(WARMUP, case.steps - 1), "count_flops": count_flops}
    weigh = {"class_path": "benchmarks.on_ranks.Weigh", "init_args": init_args}
    config["trainer"] = {
        "accelerator": "cpu",
        "max_steps": case.steps,
        "log_every_n_steps": 10**6,
        "limit_val_batches": 0,
        "logger": False,
        "enable_progress_bar": False,
        "callbacks": [weigh],
    }
    processes, found = [], []
    for devices in ranks:
        config["data"]["init_args"]["num_train"] = case.steps * case.batch * devices
        run_dir = Path(tempfile.mkdtemp(dir=folder))
        (run_dir.with_suffix(".yaml")).write_text(yaml.safe_dump(config))
        given = ["--config", f"{run_dir}.yaml", f"--run_dir={run_dir}", f"--trainer.devices={devices}"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "lit_vae.cli", "fit", *given]
        with run_dir.with_suffix(".log").open("w") as log:
            processes.append((subprocess.Popen(command, env=environment, stdout=log, stderr=log), run_dir))
    for process, run_dir in processes:
        if process.wait():
            raise RuntimeError(f"{case.config} on {list(ranks)} ranks:\n{run_dir.with_suffix('.log').read_text()}")
        found.append(Measured(**json.loads((run_dir / RESULT_FILE).read_text())))
    return found


def with_random_weights(config: Any) -> Any:
    """A configuration that needs no trained network: LPIPS of random weights, and no term of a FeatureNet."""
    if isinstance(config, list):
        return [with_random_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_path") == "lit_vae.features.LPIPS":
        config = {**config, "init_args": {**config.get("init_args", {}), "weights": "random"}}
    if config.get("class_path") == "lit_vae.realism.Adversary":  # from the first step on
        config = {**config, "init_args": {**config["init_args"], "weight": 0.5, "start_step": 0}}
    if "FeatureNet" in str(config.get("perceptual")):
        config = {**config, "perceptual": None}
    return {key: with_random_weights(part) for key, part in config.items()}
