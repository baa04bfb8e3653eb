"""Honest timing on a machine that is never quite idle: interleaved rounds, ratios within a round, medians."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lightning
import torch

from lit_vae.run.hardware import processor

Seconds = dict[str, list[float]]
"""Of each variant the seconds of every round; the n-th entries of all variants belong to the same round."""

BUSY = 0.5  # processes that want a core beside this one, on average


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of the table: how long ``variant`` takes, and its ratio to ``baseline`` with the ratio asked for.

    ``better`` is what a ratio should be of the target: at most it, or at least it.
    """

    section: str
    variant: str
    value: float
    unit: str
    baseline: str = ""
    ratio: Spread | None = None
    target: float | None = None
    better: str = "<="

    @property
    def met(self) -> bool | None:
        """Whether the ratio is what was asked for; None if nothing was."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio.median <= self.target if self.better == "<=" else self.ratio.median >= self.target

    def markdown(self) -> str:
        """One line of a Markdown table with the columns of `HEADER`."""
        ratio = f"{self.ratio.median:.3g} ({self.ratio.low:.3g} to {self.ratio.high:.3g})" if self.ratio else ""
        target = "" if self.target is None else f"{self.better} {self.target:g}: {'met' if self.met else 'MISSED'}"
        cells = (self.section, self.variant, f"{self.value:.4g} {self.unit}", ratio, self.baseline, target)
        return f"| {' | '.join(cells)} |"


HEADER = "| what | variant | median | ratio (quartiles) | ratio to | target |\n| --- | --- | ---: | ---: | --- | --- |"


def now(device: torch.device) -> float:
    """Seconds on a clock, read when all work given to ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def interleave(variants: Mapping[str, Callable[[], float]], rounds: int, warm_up: bool = True) -> Seconds:
    """Run the variants in turn, ``rounds`` times: what disturbs the machine for a while disturbs all of them.

    Each returns its own seconds (so that it can leave set-up out). With ``warm_up`` each is called once more before,
    unmeasured.
    """
    for run in variants.values() if warm_up else ():
        run()
    seconds: Seconds = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            gc.collect()
            seconds[name].append(run())
    return seconds


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of a single value that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def ratio(seconds: Seconds, variant: str, baseline: str) -> Spread:
    """Of ``variant / baseline`` in the same round: never a ratio of two medians, whose rounds may differ in load."""
    return spread([a / b for a, b in zip(seconds[variant], seconds[baseline], strict=True)])


class Environment:
    """What the numbers belong to. Construct it before the first measurement, ask for `lines` after the last."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.load = os.getloadavg()[0]

    def lines(self, timed: bool = True) -> list[str]:
        """Processor, threads, versions and load, and a warning if somebody else was at work while things were timed."""
        threads = torch.get_num_threads()
        model, units = processor()
        gpu = f"; {torch.cuda.get_device_name(self.device)}" if self.device.type == "cuda" else ""
        end = os.getloadavg()[0]
        lines = [
            f"{model}{gpu}; {os.cpu_count()} cores, {threads} used by torch; bf16 units: {units};"
            f" Python {platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__};"
            f" load average {self.load:.2f} before, {end:.2f} after."
        ]
        if timed and (self.load > BUSY or end > threads + BUSY):
            lines.append("**The machine was busy:** only the ratios mean something, and they are less certain.")
        return lines
