"""What bfloat16 and the channels-last layout save in a step of the convolutional networks."""

from functools import partial
from typing import NamedTuple

import torch

from benchmarks.experiment import BareLoop, on_fake_images
from benchmarks.timing import Row, interleave, ratio, spread


class Case(NamedTuple):
    """A configuration at a batch size that keeps a step short."""

    name: str
    config: str
    batch_size: int
    steps: int  # timed in each round
    rounds: int


CASES = (
    Case("precision, 28 x 28 x 1, width 32", "vae/mnist", batch_size=128, steps=1, rounds=9),
    Case("precision, 64 x 64 x 3, width 64", "vae/celeba64", batch_size=4, steps=1, rounds=7),
)
VARIANTS = {
    "fp32": (False, False),
    "fp32, channels-last": (False, True),
    "bf16-mixed": (True, False),
    "bf16-mixed, channels-last": (True, True),
}
TARGET = {"bf16-mixed, channels-last": 0.5}


def run(device: torch.device, quick: bool) -> list[Row]:
    """Rows of every case and variant; the ratio is that to fp32."""
    rows = []
    for case in [CASES[0]._replace(batch_size=1, rounds=2)] if quick else CASES:
        config = on_fake_images(case.config, case.steps, case.batch_size)
        loops = {
            name: BareLoop(config, device, bf16=bf16, channels_last=channels_last)
            for name, (bf16, channels_last) in VARIANTS.items()
        }
        variants = {name: partial(loop.seconds_per_step, warmup=0) for name, loop in loops.items()}
        seconds = interleave(variants, case.rounds)
        for name, values in seconds.items():
            value = 1e3 * spread(values).median
            if name == "fp32":
                rows.append(Row(case.name, name, value, "ms"))
                continue
            target = TARGET.get(name) if device.type == "cpu" else None
            rows.append(Row(case.name, name, value, "ms", "fp32", ratio(seconds, name, "fp32"), target))
    return rows
