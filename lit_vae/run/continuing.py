"""A run that goes on from a checkpoint under another configuration: what may change, how, and what is recorded.

The settings of a checkpoint (its own ``config.yaml``, which it holds) are compared with the given ones, each by each.
Settings of the trainer, the data, the callbacks and the objective are read anew, so that a change takes effect by
itself. The optimizer's numbers and the schedule are in a checkpoint; where they have changed, those of the
configuration are put in their place. All else of the model, and the seed, is what the checkpoint holds: a change is
refused.
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
from lit_vae.run.files import replacing
from lit_vae.run.settings import differences, filled, known_to
from lit_vae.run.yaml_files import check

CONFIG_FILE = "config.yaml"
CONFIG_KEY = "config_yaml"
"""Of a checkpoint: the ``config.yaml`` that it was trained with."""

_OF_THE_CHECKPOINT = re.compile(
    r"seed_everything|model\.(?!init_args\.(objective|lr_scheduler|optimizer\.init_args"
    r"|realism\.(?!.*discriminator).*\.(weight|start_step|max_adaptive_weight|optimizer))\b)"
)
_OF_THE_OPTIMIZER = re.compile(r"model\..*(optimizer|lr_scheduler)")

Complete = Callable[[dict[str, Any]], dict[str, Any]]
"""A configuration completed by today's parser; nothing, where it cannot be. What a checkpoint says is not
parsed so: the parser imports what a configuration names."""


@dataclass(frozen=True)
class Continuation:
    """How a run goes on.

    Args:
        config: ``config.yaml`` from now on.
        changes: the settings that are no longer those of the checkpoint, each as ``key: old -> new``.
        restates_optimizer: whether the optimizer's numbers and the schedule of the configuration hold, and not those
            of the checkpoint.
    """

    config: str
    changes: tuple[str, ...] = ()
    restates_optimizer: bool = False

    def write(self, path: Path) -> None:
        """Make it the run's; a file that says the same stays, with the comments of whoever wrote some."""
        if self.changes or not _says(path, self.config):
            with replacing(path) as partial:
                partial.write_text(self.config)

    def apply(self, model: Model, callbacks: list[Any], checkpoint: dict[str, Any]) -> None:
        """Put what has changed in the place of what a checkpoint says, before it is restored."""
        if self.restates_optimizer:
            restate_optimizer(model, checkpoint)
        if any(change.startswith("trainer.callbacks") for change in self.changes):
            for callback in callbacks:
                state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
                given = {name: value for name, value in vars(callback).items() if isinstance(value, (int, float))}
                state.update({name: given[name] for name in state.keys() & given.keys() & _arguments(callback)})


def start(settings: dict[str, Any], version: str) -> Continuation:
    """A run that begins, by a version of the code."""
    return Continuation(f"# lit_vae {version}\n{_dump(settings)}")


def continuation(checkpoint: Path, run_dir: Path, settings: dict[str, Any], complete: Complete) -> Continuation:
    """Compare a configuration with that of the checkpoint that a run in ``run_dir`` goes on from.

    Args:
        checkpoint: that is gone on from.
        run_dir: of the run, which may be another one than that of the checkpoint.
        settings: the complete configuration.
        complete: see `Complete`.

    Raises:
        ValueError: a setting has changed that is in the checkpoint.
    """
    held = _glance(checkpoint)
    step, was = held.get("global_step", 0), held.get(CONFIG_KEY) or _beside(checkpoint)
    own = is_of(checkpoint, run_dir)
    place = f"from step {step}" + ("" if own else f", which {checkpoint.absolute()} had come to")
    if was is None:
        entry = [f"{place}; its configuration is not known, the optimizer's settings are those below"]
        return Continuation(_with_history("", settings, entry), restates_optimizer=True)
    before = _read(was, checkpoint)
    if settings.get("seed_everything") is True:  # any seed will do, and the checkpoint has one
        settings = {**settings, "seed_everything": before.get("seed_everything")}
    changes = _changes(before, settings, complete)
    if refused := [change for change in changes if _OF_THE_CHECKPOINT.match(change)]:
        head = f"--ckpt_path {checkpoint}: training goes on from it with what it holds, so these cannot change:"
        remedy = "Undo that; or begin another run with its weights, by callbacks.StartFrom in place of --ckpt_path."
        raise ValueError("\n".join([head, *(f"  {change}" for change in refused), remedy]))
    if own and not changes:
        return Continuation(was)
    entry = [f"{place}:" if changes else place, *(f"  {change}" for change in changes)]
    restates = any(_OF_THE_OPTIMIZER.match(change) for change in changes)
    return Continuation(_with_history(was, settings, entry), tuple(changes), restates)


def is_of(checkpoint: Path, run_dir: Path) -> bool:
    """Whether a checkpoint is one of the run's."""
    return checkpoint.resolve().parent == (run_dir / CHECKPOINTS).resolve()


def _changes(before: dict[str, Any], after: dict[str, Any], complete: Complete) -> list[str]:
    if (known := known_to(before, after)) != after:  # an option that is new since is no change at its default
        before = filled(before, complete(known))
    return list(differences(before, after))


def _read(was: str, checkpoint: Path) -> dict[str, Any]:
    try:
        check(was)
        settings = yaml.safe_load(was)
    except (TypeError, yaml.YAMLError) as error:
        raise ValueError(f"--ckpt_path {checkpoint}: its configuration is damaged ({error}). Give another.") from error
    return settings if isinstance(settings, dict) else {}


def _with_history(was: str, settings: dict[str, Any], entry: list[str]) -> str:
    """The settings, headed by what the comments at the old text's head say, and an entry."""
    head = takewhile(lambda line: line.startswith("#"), was.splitlines())
    return "\n".join([*head, *(f"# {line}" for line in entry), _dump(settings)])


def _dump(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False)


def _says(path: Path, config: str) -> bool:
    try:
        return yaml.safe_load(path.read_text()) == yaml.safe_load(config)
    except (OSError, ValueError, yaml.YAMLError):
        return False


def _glance(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are not read; of a file that is none, nothing: whoever loads it says so."""
    try:
        return dict(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True))
    except Exception:  # it stumbles in many ways
        return {}


def _beside(checkpoint: Path) -> str | None:
    """What the run of a checkpoint says, for one that was written before checkpoints said so themselves."""
    file = checkpoint.absolute().parent.parent / CONFIG_FILE
    return file.read_text() if checkpoint.absolute().parent.name == CHECKPOINTS and file.is_file() else None


def restate_optimizer(model: Model, checkpoint: dict[str, Any]) -> None:
    """Give the optimizer in a checkpoint the numbers of the configuration, and the schedule its place in the new one.

    The moments stay. A schedule is stepped to where the old one was, so that the learning rate is what it would be if
    the new one had been followed from the start; one that waits for a number (``ReduceLROnPlateau``) starts anew.

    Raises:
        ValueError: the optimizer would need a state that it has not had.
    """
    made = model.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    schedule = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None
    (state,) = checkpoint["optimizer_states"]
    _refuse_new_state(model, state["state"])
    if schedule is not None and not isinstance(schedule, ReduceLROnPlateau):
        before = checkpoint["lr_schedulers"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer comes between
            for _ in range(before[0]["last_epoch"] if before else checkpoint["global_step"]):
                schedule.step()
    state["param_groups"] = optimizer.state_dict()["param_groups"]
    checkpoint["lr_schedulers"] = [] if schedule is None else [schedule.state_dict()]


def _refuse_new_state(model: Model, states: dict[int, dict[str, Any]]) -> None:
    """Try a step of such an optimizer: what it keeps must be what the old one has kept."""
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    trial = model._optimizer([weight])
    trial.step()
    missing = trial.state[weight].keys() - next(iter(states.values()), trial.state[weight]).keys()
    if missing:
        raise ValueError(
            f"{type(trial).__name__}: model.optimizer would need {', '.join(sorted(missing))}: the checkpoint has none."
            " Undo that setting of model.init_args.optimizer, or begin another run with its weights"
            " (callbacks.StartFrom)."
        )


def _arguments(callback: Any) -> set[str]:
    return set(inspect.signature(type(callback).__init__).parameters)
