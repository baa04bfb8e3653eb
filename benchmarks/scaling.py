"""What several ranks cost: bytes in all-reduces, steps on one and two ranks here, and what follows for many GPUs.

The first two are measured, with gloo between processes of this machine. The third is arithmetic, from the measured
bytes, the counted operations and `CLUSTERS`, whose numbers are assumptions; docs/scaling.md has it in words.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from math import log2
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from benchmarks.experiment import on_fake_images
from benchmarks.on_ranks import RESULT_FILE, Measured
from benchmarks.timing import Row, Seconds, interleave, ratio, spread

ROOT = Path(__file__).resolve().parents[1]
MIB = 2.0**20
ONE, APART, TOGETHER = "one process", "two processes that do not talk", "two ranks"


class Case(NamedTuple):
    """A configuration, images a rank and step, and how many steps are timed in a round."""

    config: str
    batch: int
    steps: int


TIMED = (
    Case("vae/mnist", 128, 100),
    Case("vae/cifar10", 32, 15),
    Case("vqvae/cifar10", 16, 15),
    Case("vqvae2/cifar10", 16, 15),
    Case("pixelcnn/mnist_binary", 16, 15),
    Case("compare/bsds/perceptual_gan", 4, 6),
)
COUNTED = (
    Case("vae/celeba64", 16, 2),
    Case("vqvae2/ffhq256", 1, 2),
    Case("vqvae/vqgan_imagenet256", 1, 2),
    Case("kl_autoencoder/kl_f8", 1, 2),
)
QUICK = (Case("vqvae/digits", 2, 2),)
ROUNDS, WARMUP = 5, 3


class Cluster(NamedTuple):
    """Assumptions: what a GPU sustains, and what lies between GPUs.

    ``bandwidth`` in bytes/s is that of a ring (NCCL's *bus bandwidth*) for each GPU; ``latency`` in seconds is that of
    one small all-reduce, for each doubling of the GPUs.
    """

    name: str
    gpus: int
    bandwidth: float
    latency: float
    flops: float = 200e12  # a fifth of an H100's dense bfloat16: convolutions and norms of small images reach no more
    least: float = 4e-3  # seconds of the smallest step: some hundred kernels are launched, and a trainer turns


CLUSTERS = (
    Cluster("8 GPUs of one node, NVLink", 8, 350e9, 5e-6),
    Cluster("64 GPUs, 400 Gb/s for each", 64, 40e9, 8e-6),
    Cluster("512 GPUs, 400 Gb/s for each", 512, 35e9, 8e-6),
    Cluster("64 GPUs, 100 Gb/s for each eight", 64, 1.25e9, 15e-6),
)


def efficiency(cluster: Cluster, flops: float, gradients: int, calls: int) -> float:
    """Of a step on so many GPUs: the time that one alone would take over the time that it takes, in (0, 1].

    Gradients of ``gradients`` bytes go round a ring, ``2 (W - 1) / W`` times through each link, while the backward pass
    (two thirds of the step) goes on; a bucket of 25 MiB, the last one, is waited for in any case. Each of the other
    ``calls`` is small and waited for.

    Args:
        cluster: what is assumed.
        flops: of a step on one GPU.
        gradients: bytes that a rank contributes.
        calls: other all-reduces in a step, beside the one that asks for a stop.
    """
    work = max(flops / cluster.flops, cluster.least)
    ring = 2.0 * (cluster.gpus - 1) / cluster.gpus * gradients / cluster.bandwidth
    last = ring * min(1.0, 25.0 * MIB / gradients)
    exposed = max(ring - 2.0 / 3.0 * work, last)
    waited = (calls + 1.0) * cluster.latency * log2(cluster.gpus)
    return work / (work + exposed + waited)


def run(device: torch.device, quick: bool) -> list[Row]:
    """Always on the CPU."""
    rows: list[Row] = []
    for case in () if quick else TIMED:
        rows += timed(case)
    for case in QUICK if quick else (*TIMED, *COUNTED):
        with tempfile.TemporaryDirectory() as folder:
            (measured,) = train(case._replace(steps=2), [2], Path(folder), count_flops=True)
        rows += expected(case, measured)
    return rows


def timed(case: Case) -> list[Row]:
    """A step alone, beside another, and with another."""
    with tempfile.TemporaryDirectory() as folder:

        def step(*ranks: int) -> Callable[[], float]:
            return lambda: max(measured.seconds for measured in train(case, ranks, Path(folder)))

        seconds: Seconds = interleave({ONE: step(1), APART: step(1, 1), TOGETHER: step(2)}, ROUNDS)
    section = f"scaling, {case.config}, {case.batch} images a rank"
    rows = [Row(section, ONE, spread(seconds[ONE]).median * 1e3, "ms")]
    for variant, baseline in ((APART, ONE), (TOGETHER, ONE), (TOGETHER, APART)):
        value = spread(seconds[variant]).median * 1e3
        rows.append(Row(section, variant, value, "ms", baseline, ratio(seconds, variant, baseline)))
    return rows


def expected(case: Case, measured: Measured) -> list[Row]:
    """Rows of what is sent in a step and what it costs, and of the efficiency on each of `CLUSTERS`.

    There a rank has the images of the configuration, not those that were counted here.
    """
    section = f"scaling, {case.config}"
    batch = yaml.safe_load((ROOT / "configs" / f"{case.config}.yaml").read_text())["data"]["init_args"]["batch_size"]
    flops = measured.flops / case.batch * batch
    rows = [
        Row(section, "gradients", measured.gradients / MIB, "MiB a step"),
        Row(section, "other all-reduces", measured.others / 2.0**10, "KiB a step"),
        Row(section, "other all-reduces, beside the one that asks for a stop", measured.calls, "a step"),
        Row(section, f"operations for {batch} images a rank", flops / 1e12, "TFLOP a step"),
    ]
    for cluster in CLUSTERS:
        value = efficiency(cluster, flops, measured.gradients, measured.calls)
        rows.append(Row(section, f"efficiency expected on {cluster.name}", value, "of linear"))
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
    """A configuration that needs no network that others have trained, at the same cost."""
    if isinstance(config, list):
        return [with_random_weights(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_path") == "lit_vae.features.LPIPS":
        config = {**config, "init_args": {**config.get("init_args", {}), "weights": "random"}}
    if config.get("class_path") == "lit_vae.realism.Adversary":  # from the first step on
        config = {**config, "init_args": {**config["init_args"], "weight": 0.5, "train_from": 0}}
    return {key: with_random_weights(part) for key, part in config.items()}
