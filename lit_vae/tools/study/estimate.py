"""How long the trainings of a study take, said after the first minute of the first of them."""

import re
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from lit_vae.images import Batch
from lit_vae.tools.study.experiments import Experiment

if TYPE_CHECKING:
    from lit_vae.models.base import ImageModel

AFTER = 60.0
"""Seconds of training until the estimate is made: its first steps are slow, and a validation should be within."""
TIMED_STEPS = 5
LATE = 10**9
"""An optimizer step at which every schedule has ended and every player has joined."""

_PROGRESS = re.compile(r"step (\d+)/(\d+) .*?([\d.]+) it/s")  # a line of lit_vae.run.progress.LogProgress


class Estimate:
    """The time of all trainings, from a few steps of each model and the pace of the first training.

    A step of training takes longer than the model's own: data, callbacks, validations. This excess is taken to be the
    same for all. All are taken to have as many steps as the first.

    Args:
        experiments: what is left to train, in its order. Of fewer than two there is nothing to say, and of models of
            anything but images nothing is known.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._own: list[float] = []
        if len(experiments) > 1:
            with suppress(ValueError, OSError, RuntimeError):  # its training says what is wrong
                self._own = [seconds_of_a_step(experiment) for experiment in experiments]
        self._said = not self._own

    def after(self, seconds: float, line: str) -> str | None:
        """The estimate in words, once, as soon as the first training has run for `AFTER` seconds.

        ``line`` is the last one of its log.
        """
        progress = _PROGRESS.search(line)
        if self._said or seconds < AFTER or progress is None:
            return None
        self._said = True
        steps, pace = int(progress[2]), 1.0 / float(progress[3])
        excess = pace - self._own[0]
        total = steps * sum(max(own + excess, 0.0) for own in self._own)
        hours = str(timedelta(minutes=round(total / 60.0)))[:-3]
        return f"about {hours} h for {len(self._own)} trainings, their tests not counted"


def seconds_of_a_step(experiment: Experiment) -> float:
    """Seconds for the loss of a batch and its gradient.

    Raises:
        ValueError: the configuration is wrong, a file is missing, or the model is of anything but images.
    """
    from lit_vae.models.base import ImageModel
    from lit_vae.tools.configurations import build_components
    from lit_vae.tools.runs import choose_device

    built = build_components(experiment.files)
    if not isinstance(built.model, ImageModel):
        raise ValueError(f"{type(built.model).__name__} is no model of images.")
    model, n = built.model.to(choose_device(None)), getattr(built.data, "batch_size", 1)
    x = 2.0 * torch.rand(n, *model.image_shape, device=model.device).round() - 1.0  # any likelihood takes these
    batch = Batch(x, model.labels_for(n, None))
    half = "bf16" in str(built.content["trainer"]["precision"])
    return statistics.median(_timed(model, batch, half) for _ in range(TIMED_STEPS))


def _timed(model: "ImageModel", batch: Batch, half: bool) -> float:
    began = time.perf_counter()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=half):
        result = model.step(batch, LATE, None)
        if model.has_added_terms:
            result = model.add_terms(result, batch, LATE)
    (result.terms["loss"].mean() + result.other_loss).backward()
    model.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
