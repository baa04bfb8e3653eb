"""Resuming from a checkpoint with another configuration: what may change, how, and what is recorded.

A checkpoint contains the ``config.yaml`` of its run. Each of its settings is compared with the given one:

- trainer, data, callbacks, objective: a change takes effect, since these are built from the configuration;
- optimizer and schedule: a checkpoint contains their numbers, so changed ones are replaced in the checkpoint;
- the rest of the model, and the seed: a change is refused, since the checkpoint's values would be used.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_vae.models.module import Model
from lit_vae.run.checkpoints import CHECKPOINTS
from lit_vae.run.files import CONFIG_FILE, replacing
from lit_vae.run.settings import differences, with_defaults, without_new
from lit_vae.run.yaml_files import check

CONFIG_KEY = "config_yaml"
"""The key of a checkpoint that holds the ``config.yaml`` of its run."""

_FIXED = re.compile(
    r"seed_everything|model\.(?!init_args\.(objective|lr_scheduler|optimizer\.init_args"
    r"|realism\.(?!.*discriminator).*\.(weight|start_step|max_adaptive_weight|optimizer))\b)"
)
_OPTIMIZER = re.compile(r"model\..*(optimizer|lr_scheduler)")

Complete = Callable[[dict[str, Any]], dict[str, Any]]
"""Adds today's defaults to a configuration; returns an empty one if the parser refuses it. The configuration of a
checkpoint is never given to the parser, which imports the classes that it names."""


@dataclass(frozen=True)
class Continuation:
    """How a run starts or resumes.

    Args:
        config: the text of ``config.yaml`` from now on.
        changes: settings that differ from those of the checkpoint, each as ``key: old -> new``.
        replaces_optimizer: whether the configuration's optimizer settings and schedule replace those of the checkpoint.
    """

    config: str
    changes: tuple[str, ...] = ()
    replaces_optimizer: bool = False

    def write(self, path: Path) -> None:
        """Write ``config.yaml``, unless the file has the same settings: it may have comments of the user."""
        if self.changes or not _has_settings(path, self.config):
            with replacing(path) as partial:
                partial.write_text(self.config)

    def apply(self, model: Model, callbacks: list[Any], checkpoint: dict[str, Any]) -> None:
        """Put changed settings into a checkpoint before it is restored."""
        if self.replaces_optimizer:
            replace_optimizer_settings(model, checkpoint)
        if any(change.startswith("trainer.callbacks") for change in self.changes):
            for callback in callbacks:
                state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
                given = {name: value for name, value in vars(callback).items() if isinstance(value, (int, float))}
                state.update({name: given[name] for name in state.keys() & given.keys() & _arguments(callback)})


def start(settings: dict[str, Any], version: str) -> Continuation:
    """A run that starts from the beginning, with this version of lit_vae."""
    return Continuation(f"# lit_vae {version}\n{_dump(settings)}")


def continuation(checkpoint: Path, run_dir: Path, settings: dict[str, Any], complete: Complete) -> Continuation:
    """Compare a configuration with that of a checkpoint, which may belong to another run than ``run_dir``.

    Raises:
        ValueError: a setting has changed that must stay as in the checkpoint.
    """
    held = _read_lazily(checkpoint)
    step, was = held.get("global_step", 0), held.get(CONFIG_KEY) or _beside(checkpoint)
    own = is_of(checkpoint, run_dir)
    place = f"from step {step}" + ("" if own else f" of {checkpoint.absolute()}")
    if was is None:
        entry = [f"{place}; its configuration is unknown, so the optimizer settings below replace its own"]
        return Continuation(_with_history("", settings, entry), replaces_optimizer=True)
    before = _read(was, checkpoint)
    if settings.get("seed_everything") is True:  # any seed is accepted, so keep that of the checkpoint
        settings = {**settings, "seed_everything": before.get("seed_everything")}
    changes = _changes(before, settings, complete)
    if refused := [change for change in changes if _FIXED.match(change)]:
        head = f"--ckpt_path {checkpoint}: these settings cannot change when training resumes from a checkpoint:"
        remedy = "Undo the change. Or start a new run from its weights: callbacks.StartFrom instead of --ckpt_path."
        raise ValueError("\n".join([head, *(f"  {change}" for change in refused), remedy]))
    if own and not changes:
        return Continuation(was)
    entry = [f"{place}:" if changes else place, *(f"  {change}" for change in changes)]
    restates = any(_OPTIMIZER.match(change) for change in changes)
    return Continuation(_with_history(was, settings, entry), tuple(changes), restates)


def is_of(checkpoint: Path, run_dir: Path) -> bool:
    """Whether a checkpoint belongs to the run."""
    return checkpoint.resolve().parent == (run_dir / CHECKPOINTS).resolve()


def _changes(before: dict[str, Any], after: dict[str, Any], complete: Complete) -> list[str]:
    if (known := without_new(before, after)) != after:  # an option that did not exist then counts as its default
        before = with_defaults(before, complete(known))
    return list(differences(before, after))


def _read(was: str, checkpoint: Path) -> dict[str, Any]:
    try:
        check(was)
        settings = yaml.safe_load(was)
    except (TypeError, yaml.YAMLError) as error:
        raise ValueError(
            f"--ckpt_path {checkpoint}: its configuration is damaged ({error}). Give another checkpoint."
        ) from error
    return settings if isinstance(settings, dict) else {}


def _with_history(was: str, settings: dict[str, Any], entry: list[str]) -> str:
    """The settings as text, below the comments at the head of the old text and a new entry."""
    head = takewhile(lambda line: line.startswith("#"), was.splitlines())
    return "\n".join([*head, *(f"# {line}" for line in entry), _dump(settings)])


def _dump(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False)


def _has_settings(path: Path, config: str) -> bool:
    try:
        return yaml.safe_load(path.read_text()) == yaml.safe_load(config)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _read_lazily(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint without reading its tensors; empty if the file is not one, which is reported when it is loaded."""
    try:
        return dict(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True))
    except Exception:  # torch.load raises many kinds
        return {}


def _beside(checkpoint: Path) -> str | None:
    """The ``config.yaml`` beside a checkpoint that contains none: older versions did not write it."""
    file = checkpoint.absolute().parent.parent / CONFIG_FILE
    return file.read_text() if checkpoint.absolute().parent.name == CHECKPOINTS and file.is_file() else None


def replace_optimizer_settings(model: Model, checkpoint: dict[str, Any]) -> None:
    """Replace the optimizer settings and the schedule in a checkpoint by those of the configuration.

    The moments stay. The new schedule is stepped to the checkpoint's step, so the learning rate is the one that it
    would have from the start. ``ReduceLROnPlateau`` starts again.

    Raises:
        ValueError: the new settings need a state that the checkpoint does not have.
    """
    made = model.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    schedule = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None
    (state,) = checkpoint["optimizer_states"]
    _refuse_new_state(model, state["state"])
    if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
        before = checkpoint["lr_schedulers"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a schedule is stepped without the optimizer
            for _ in range(before[0]["last_epoch"] if before else checkpoint["global_step"]):
                schedule.step()
    state["param_groups"] = optimizer.state_dict()["param_groups"]
    checkpoint["lr_schedulers"] = [] if schedule is None else [schedule.state_dict()]


def _refuse_new_state(model: Model, states: dict[int, dict[str, Any]]) -> None:
    """Take a step with the new settings: it must keep no state that the checkpoint lacks."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    trial = model._optimizer([weight])
    trial.step()
    missing = trial.state[weight].keys() - next(iter(states.values()), trial.state[weight]).keys()
    if missing:
        raise ValueError(
            f"{type(trial).__name__}: model.optimizer needs {', '.join(sorted(missing))}, which the checkpoint lacks."
            " Undo the change of model.init_args.optimizer, or start a new run from its weights (callbacks.StartFrom)."
        )


def _arguments(callback: Any) -> set[str]:
    return set(inspect.signature(type(callback).__init__).parameters)
