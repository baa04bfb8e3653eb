"""What a training step through ``lightning fit`` costs beside a bare loop on the same module."""

import contextlib
import copy
import io
import json
import logging
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import yaml

from benchmarks.experiment import BareLoop, on_fake_images
from benchmarks.through_lightning import RESULT_FILE, NaiveVAE, Turns
from benchmarks.timing import Row, Seconds, interleave, ratio, spread


class Size(NamedTuple):
    """A configuration, at its own batch size, and what its step through Lightning may cost, in bare steps."""

    name: str
    config: str
    batch_size: int
    steps: int  # timed in each round
    log_every: int  # divides `steps`: every round has its share of logging steps
    rounds: int
    warmup: int  # steps at the start of a round that are not timed
    target: float


SMALL = Size("step, MLP, 8 x 8", "vae/digits", 64, steps=200, log_every=50, rounds=15, warmup=10, target=1.8)
MLP = Size("step, MLP, 28 x 28", "vae/mnist_binary", 128, steps=50, log_every=50, rounds=15, warmup=5, target=1.8)
CONV = Size("step, convolutional, 28 x 28", "vae/mnist", 128, steps=3, log_every=3, rounds=13, warmup=2, target=1.03)


def run(device: torch.device, quick: bool) -> list[Row]:
    """Rows of all sizes, of naive logging, and of the fused optimizer."""
    sizes = [SMALL, MLP, CONV]
    if quick:
        sizes = [s._replace(batch_size=2, steps=2, log_every=1, rounds=2, warmup=1) for s in (SMALL, CONV)]
    rows = []
    for size in sizes:
        rows += _rows(size, device)
        if size.config != CONV.config:  # what a step costs beside the network shows where the network is small
            fewer = size._replace(rounds=max(2, size.rounds // 2))
            rows += [*_rows(fewer, device, naive=True), *_optimizer_rows(fewer, device)]
    return rows


def _rows(size: Size, device: torch.device, naive: bool = False) -> list[Row]:
    seconds = fit(size, device, naive)
    milliseconds = {name: 1e3 * spread(values).median for name, values in seconds.items()}
    ours = Row(
        section=size.name,
        variant="naive: five self.log at every step" if naive else "lightning fit, all terms logged",
        value=milliseconds["lightning"],
        unit="ms",
        baseline="bare loop",
        ratio=ratio(seconds, "lightning", "bare"),
        target=None if naive or device.type != "cpu" else size.target,
    )
    return [ours] if naive else [Row(size.name, "bare loop", milliseconds["bare"], "ms"), ours]


def _optimizer_rows(size: Size, device: torch.device) -> list[Row]:
    loops = {}
    for fused in (True, False):
        config = on_fake_images(size.config, size.steps + size.warmup, size.batch_size)
        config["model"]["init_args"]["optimizer"]["init_args"]["fused"] = fused
        loops["fused" if fused else "for each tensor"] = BareLoop(config, device)
    variants = {name: partial(loop.seconds_per_step, size.warmup) for name, loop in loops.items()}
    seconds = interleave(variants, size.rounds)
    value = 1e3 * spread(seconds["for each tensor"]).median
    slower = ratio(seconds, "for each tensor", "fused")
    return [Row(size.name, "bare loop, Adam not fused", value, "ms", "bare loop, Adam fused", slower)]


def fit(size: Size, device: torch.device, naive: bool = False) -> Seconds:
    """Seconds per step of ``lightning`` and ``bare`` in every round, from one run of the command line."""
    with tempfile.TemporaryDirectory() as folder:
        file, run_dir = Path(folder, "config.yaml"), Path(folder, "run")
        config = on_fake_images(size.config, size.steps + size.warmup, size.batch_size)
        file.write_text(yaml.safe_dump(_with_clock(config, size, device, file, naive)))
        _lightning("fit", "--config", str(file), "--run_dir", str(run_dir))
        seconds: Seconds = json.loads((run_dir / RESULT_FILE).read_text())
    return seconds


def _with_clock(config: dict[str, Any], size: Size, device: torch.device, file: Path, naive: bool) -> dict[str, Any]:
    """The configuration with as many epochs as rounds, the clock among its callbacks, and no validation."""
    config = copy.deepcopy(config)
    clock = {"class_path": f"{Turns.__module__}.{Turns.__name__}"}
    config["trainer"] |= {
        "accelerator": "gpu" if device.type == "cuda" else "cpu",
        "devices": 1,
        "max_epochs": 1 + size.rounds,
        "log_every_n_steps": size.log_every,
        "limit_val_batches": 0,
        "callbacks": [
            *config["trainer"]["callbacks"],
            {**clock, "init_args": {"config": str(file), "warmup": size.warmup}},
        ],
    }
    if naive:
        config["model"]["class_path"] = f"{NaiveVAE.__module__}.{NaiveVAE.__name__}"
    return config


def _lightning(*args: str) -> None:
    """The ``lightning`` command in this process, as it runs where nobody watches: progress in lines, not as a bar."""
    from lit_vae.cli import main

    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with (
            mock.patch.object(sys, "argv", ["lightning", *args]),
            mock.patch.dict(os.environ, {"WANDB_MODE": "disabled"}),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            main()
    finally:
        logger.setLevel(level)
