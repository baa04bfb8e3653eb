"""What ranks exchange and compute in a step, counted here, and what follows for many GPUs.

The latter is arithmetic with `CLUSTERS`, whose numbers are assumptions; docs/scaling.md has it in words.
"""

import tempfile
from math import log2
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.on_ranks import Measured
from benchmarks.ranks import ROOT, Case, train
from benchmarks.timing import Row
from lit_vae.run.config_folders import with_base
from lit_vae.tools.configurations import complete_config

TIMED = False
MIB = 2.0**20
CASES = tuple(
    Case(config, batch, 2)
    for config, batch in (
        ("vae/mnist", 16),
        ("vae/celeba64", 4),
        ("vqvae/cifar10", 4),
        ("vqvae2/cifar10", 4),
        ("vqvae2/ffhq256", 1),
        ("pixelcnn/cifar10", 2),
        ("compare/bsds/perceptual_gan", 2),
        ("kl_autoencoder/kl_f8", 1),
        ("vqvae/vqgan_imagenet256", 1),
    )
)
QUICK = (Case("vae/digits", 2, 2),)


class Cluster(NamedTuple):
    """Assumptions: what a GPU sustains, and what lies between GPUs.

    ``bandwidth`` in bytes/s is the *bus bandwidth* of NCCL's tests for messages of one bucket, about half of what large
    ones reach; ``latency`` in seconds is that of one small all-reduce, for each doubling of the GPUs.
    """

    name: str
    gpus: int
    bandwidth: float
    latency: float
    flops: float = 200e12  # a fifth of an H100's dense bfloat16: convolutions and norms of small images reach no more
    least: float = 4e-3  # seconds of the smallest step: some hundred kernels are launched, and a trainer turns


CLUSTERS = (
    Cluster("8 GPUs of one node, NVLink", 8, 200e9, 5e-6),
    Cluster("64 GPUs, 400 Gb/s for each", 64, 100e9, 8e-6),
    Cluster("512 GPUs, 400 Gb/s for each", 512, 70e9, 8e-6),
    Cluster("64 GPUs, 100 Gb/s for each node of 8", 64, 6e9, 15e-6),
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
    for case in QUICK if quick else CASES:
        with tempfile.TemporaryDirectory() as folder:
            (measured,) = train(case, [2], Path(folder), count_flops=True)
        rows += expected(case, measured)
    return rows


def expected(case: Case, measured: Measured) -> list[Row]:
    """Rows of what is sent in a step and what it costs, and of the efficiency on each of `CLUSTERS`.

    There a rank has the images of the configuration, not those that were counted here.
    """
    section = f"scaling, {case.config}"
    config = complete_config(with_base(ROOT / "configs" / f"{case.config}.yaml"))
    batch = config["data"]["init_args"]["batch_size"]
    flops = measured.flops / case.batch * batch
    rows = [
        Row(section, "gradients", measured.gradients / MIB, "MiB a step"),
        Row(section, f"operations for {batch} images a rank", flops / 1e12, "TFLOP a step"),
    ]
    if measured.calls:
        what = f"{measured.calls} other all-reduces, beside the one that asks for a stop"
        rows.append(Row(section, what, measured.others / 2.0**10, "KiB a step"))
    for cluster in CLUSTERS:
        value = efficiency(cluster, flops, measured.gradients, measured.calls)
        rows.append(Row(section, f"efficiency expected on {cluster.name}", value, "of linear"))
    return rows
