"""Problems between the callbacks of a configuration, found before anything is written."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_warn

from lit_vae.models.module import Model
from lit_vae.run.errors import TrainingStopped

_KNOWN = ("callbacks.", "lit_vae.", "lightning.")
"""Packages whose classes list in ``numbers`` what they log, or log nothing that can be monitored."""


class Monitor(NamedTuple):
    """A number that is monitored: ``who`` monitors it, and the ``setting`` that names it."""

    who: str
    name: str
    setting: str


def duplicates(callbacks: Sequence[Callback]) -> list[str]:
    """Messages about callbacks that are listed more than once, although a checkpoint holds the state of only one."""
    counts: Counter[tuple[type, str]] = Counter()
    for callback in callbacks:
        has_state = type(callback).state_dict is not Callback.state_dict
        is_ours = type(callback).__module__.startswith("callbacks.")
        measures_or_draws = hasattr(callback, "numbers") or hasattr(callback, "draw")
        if has_state or (is_ours and not measures_or_draws):
            counts[type(callback), callback.state_key] += 1
    found = []
    for (kind, key), count in counts.items():
        if count > 1:
            by = key.removeprefix(kind.__qualname__)
            apart = f" Two may differ in {by}." if by.startswith("{") else ""
            found.append(
                f"trainer.callbacks has {kind.__name__} {count} times, and a run can have one.{apart}"
                " Remove the others."
            )
    return found


def monitor_problems(callbacks: Sequence[Callback], model: Model, data: Any, every_n_epochs: int | None) -> list[str]:
    """Messages about monitored numbers that this run does not log, and about numbers that two callbacks log.

    A ``train/`` number that no validation logs is checked at the first logged step (`MonitoredInTraining`). If a model
    or a callback of the user might log a missing number, this is a warning. A validation is every ``every_n_epochs``.
    """
    sources: dict[str, Callback | None] = dict.fromkeys(model.evaluation_names(getattr(data, "spec", None)))
    found = []
    for callback in callbacks:
        for name in _numbers(callback, model, data):
            if name in sources:
                other = type(model if sources[name] is None else sources[name]).__name__
                found.append(
                    f"{type(callback).__name__}: {name} is also logged by {other}; the mean of both would be shown."
                    " Remove one of them from trainer.callbacks."
                )
            sources[name] = callback
    names = {*sources, *(f"train/{term}" for term in model.term_names)}
    strange = [type(part).__name__ for part in (model, *callbacks) if not _is_known(part)]
    for monitor in monitors(callbacks, model):
        if monitor.name in names:
            found += _too_rare(monitor, sources.get(monitor.name), every_n_epochs)
        elif not _may_come(monitor.name, callbacks) and not strange:
            found.append(_unknown(monitor, names))
        elif strange and not monitor.name.startswith("train/"):
            rank_zero_warn(f"{_unknown(monitor, names)} Training goes on, since {', '.join(strange)} may log it.")
    return found


def monitors(callbacks: Iterable[Callback], model: Model) -> list[Monitor]:
    """The numbers that callbacks and the scheduler monitor."""
    configured = model.configure_optimizers()
    scheduler = configured["lr_scheduler"]["scheduler"] if isinstance(configured, Mapping) else None
    if not isinstance(name := getattr(scheduler, "monitor", None), str):
        return _of_callbacks(callbacks)
    of_scheduler = Monitor(type(scheduler).__name__, name, "model.init_args.lr_scheduler.init_args.monitor")
    return [*_of_callbacks(callbacks), of_scheduler]


def _of_callbacks(callbacks: Iterable[Callback]) -> list[Monitor]:
    found = []
    for callback in callbacks:
        name = getattr(callback, "monitor", None)
        if isinstance(name, str):
            kind = type(callback).__name__
            ours = {"BestCheckpoint": "best_checkpoint.monitor"}
            found.append(Monitor(kind, name, ours.get(kind, f"init_args.monitor of {kind} in trainer.callbacks")))
    return found


class MonitoredInTraining(Callback):
    """Checks, at the first logged step, that the monitored ``train/`` numbers are logged."""

    def __init__(self) -> None:
        self._looked = False

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """See the class.

        Raises:
            TrainingStopped: a number is missing; the message names the nearest.
        """
        step, logged = getattr(pl_module, "last_logged", (-1, {}))
        if self._looked or step < 0 or step != trainer.global_step - 1 or not pl_module.is_settled(step):
            return
        self._looked = True
        names = {*logged, *trainer.callback_metrics}
        if any(not _is_known(part) for part in (pl_module, *trainer.callbacks)):
            return
        for monitor in _of_callbacks(trainer.callbacks):
            if monitor.name.startswith("train/") and monitor.name not in names:
                raise TrainingStopped(_unknown(monitor, {name for name in names if name.startswith("train/")}))


def _numbers(callback: Callback, model: Model, data: Any) -> list[str]:
    numbers = getattr(callback, "numbers", None)
    try:
        return [f"val/{name}" for name in numbers(model, data)] if callable(numbers) else []
    except AttributeError:  # its `setup` will say that it does not work with this model
        return []


def _too_rare(monitor: Monitor, source: Callback | None, every_n_epochs: int | None) -> list[str]:
    """A message if a number is not measured at every validation, so that it is missing or old."""
    if source is None:
        return []
    measured: int | None = getattr(source, "every_n_epochs", 1)
    if measured is not None and (every_n_epochs or 1) % measured == 0:
        return []
    when = "in tests only" if measured is None else f"every {measured} epochs only"
    return [
        f"{monitor.who}: monitor (={monitor.name!r}) is needed at every validation, but"
        f" {type(source).__name__} measures it {when}. Set its init_args.every_n_epochs to"
        f" {every_n_epochs or 1} (trainer.check_val_every_n_epoch), or another {monitor.setting}."
    ]


def _unknown(monitor: Monitor, names: set[str]) -> str:
    near = difflib.get_close_matches(monitor.name, sorted(names), n=3, cutoff=0.5)
    said = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"It logs {', '.join(sorted(names))}."
    return f"{monitor.who}: monitor (={monitor.name!r}) is not logged by this run. {said} Set {monitor.setting}."


def _may_come(name: str, callbacks: Iterable[Callback]) -> bool:
    """Whether only training can show if a name is logged."""
    of_rates = name.startswith("lr-") and any(isinstance(callback, LearningRateMonitor) for callback in callbacks)
    return of_rates or name.startswith("train/")


def _is_known(part: Any) -> bool:
    return type(part).__module__.startswith(_KNOWN)
