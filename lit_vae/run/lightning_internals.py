"""Everything that lit_vae reads of Lightning and jsonargparse beyond their documented interface.

Such a name may change in any release, so each has one function here, which says why no documented way exists.
`pyproject.toml` bounds the versions. If a name is missing all the same, the error says which version to install.
"""

import importlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from operator import attrgetter
from typing import Any

SUPPORTED = {"lightning": "lightning>=2.6.6,<2.7", "jsonargparse": "jsonargparse[signatures]>=4.52"}

CLASS_PATH, INSTANTIATOR = "_class_path", "_instantiator"
"""The keys under which a checkpoint's hyper-parameters name a class, and the function that builds it."""

INSTANTIATE_MODULE = "lightning.pytorch.cli.instantiate_module"
"""The only value of `INSTANTIATOR` that Lightning writes."""


def is_built_from_configuration() -> bool:
    """Whether a command line, or ``load_from_checkpoint``, is building a component right now.

    ``save_hyperparameters`` then keeps the plain configuration, and otherwise the built arguments. It does not say
    which, and copies all networks before anybody could look.
    """
    return _imported("lightning.pytorch.core.mixins.hparams_mixin", "_given_hyperparameters").get() is not None


def batch_index(trainer: Any) -> int:
    """How many training batches came before this one, in all epochs, also where several make one optimizer step.

    ``trainer.global_step`` counts optimizer steps. A count of our own would be a second one to save and restore.
    """
    return int(_attribute(trainer, "fit_loop.total_batch_idx"))


def validation_interval(trainer: Any) -> float | None:
    """Training batches between two validations, or infinity; None where the clock decides.

    ``trainer.val_check_interval`` may be a fraction of an epoch. Only Lightning knows what it has made of that.
    """
    interval: float | None = _attribute(trainer, "val_check_batch")
    return interval


def started_processes(trainer: Any) -> "list[subprocess.Popen[bytes]]":
    """Lightning's own list of the processes that it has started as other ranks; empty if a launcher has started them.

    Lightning kills the run soon after one of them dies. Whoever empties the list takes that over, and no documented
    way does so.
    """
    found: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    return found if all(isinstance(process, subprocess.Popen) for process in found) else []


@contextmanager
def import_rules_given_back() -> Iterator[None]:
    """Undo on leaving what the block has set by ``set_parsing_settings(import_path_...)``.

    These rules hold for the whole process, and jsonargparse can only add to them.
    """
    settings = _imported("jsonargparse._common", "parsing_settings")
    before = {name: settings[name] for name in ("import_path_verdicts", "import_paths_enforced")}
    try:
        yield
    finally:
        settings.update(before)


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _unsupported(module.partition(".")[0], f"{module}.{name}") from error


def _attribute(trainer: Any, path: str) -> Any:
    try:
        return attrgetter(path)(trainer)
    except AttributeError as error:
        raise _unsupported("lightning", f"Trainer.{path}") from error


def _unsupported(package: str, name: str) -> ImportError:
    return ImportError(
        f"{package} {version(package)} has no {name}, which lit_vae needs. Install a supported version:"
        f" pip install '{SUPPORTED[package]}'"
    )
