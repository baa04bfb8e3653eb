"""Which classes a file from elsewhere may name. Anything else is refused before it is imported.

A checkpoint holds no code, but it names classes and their arguments, and importing or building a class runs code. The
same holds for the ``config.yaml`` of a run that somebody else has made. See ``SECURITY.md``.
"""

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_vae.run.lightning_internals import CLASS_PATH, import_rules_given_back

VARIABLE = "LIT_VAE_TRUST"
OURS = ("lit_vae", "callbacks", "torch.nn", "torch.optim", "lightning.pytorch.cli.ReduceLROnPlateau")
"""Packages whose classes a checkpoint may name, and the one class that Lightning's command line adds to schedules."""

_DENIED = re.compile(r"Importing '([\w.]+)' is not allowed, denied by")  # what jsonargparse says
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_named_by_user: set[str] = set()
_restricted = False


def forget_classes() -> None:
    """Trust no configuration any more: a new command begins."""
    _named_by_user.clear()


def trust_classes_of(config: Any) -> None:
    """Trust the classes that the user's own configuration names, for the rest of this command.

    Args:
        config: nested plain values.
    """
    if _restricted:  # a file from elsewhere is being read as a configuration
        return
    for _, name in class_paths(config):
        if isinstance(name, str) and _NAME.fullmatch(name):
            _named_by_user.add(name)
            with suppress(ImportError, AttributeError):
                _named_by_user.add(_defined_as(_imported(name)))


def is_named_by_user(found: type) -> bool:
    """Whether the configuration of this command names a class, be it as a default."""
    return _defined_as(found) in _named_by_user


def trusted() -> tuple[str, ...]:
    """Packages and classes that a file from elsewhere may name: ours, the user's own, those of `VARIABLE`.

    Raises:
        ValueError: the variable holds something that is no name.
    """
    given = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if wrong := [name for name in given if not all(part.isidentifier() for part in name.split("."))]:
        raise ValueError(
            f"--trust, {VARIABLE}: {', '.join(wrong)} is not the name of a package or class. Give such as mypackage,"
            " mypackage.networks or mypackage.networks.UNet, separated by commas."
        )
    return (*OURS, *sorted(_named_by_user), *given)


def is_trusted(name: str) -> bool:
    """Whether a class or function of that name may be imported."""
    return any(name == known or name.startswith(f"{known}.") for known in trusted())


def class_named(class_path: Any, file: Path, key: str) -> type:
    """The class of that name.

    Args:
        class_path: ``package.module.Class``.
        file: that names it.
        key: where in the file.

    Raises:
        ValueError: it is not trusted, is defined in a package that is not, is not there, or is no class.
    """
    if not isinstance(class_path, str) or not _NAME.fullmatch(class_path):
        raise ValueError(
            f"{file}: {key} (={class_path!r:.100}) must be the path of a class, such as torch.nn.Identity."
        )
    if not is_trusted(class_path):
        raise ValueError(_refusal(file, class_path, key))
    try:
        found = _imported(class_path)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{file}: {key} is {class_path}: {error}. Install what defines it.") from error
    if not isinstance(found, type):
        raise ValueError(f"{file}: {key} (={class_path}) is no class. Give another file.")
    if not is_trusted(_defined_as(found)):  # a trusted module sees others through its imports
        raise ValueError(_refusal(file, _defined_as(found), key))
    return found


def check_classes(content: Any, file: Path, key: str) -> None:
    """Look at every class that nested values of a file name, before any is built.

    Raises:
        ValueError: see `class_named`.
    """
    for where, name in class_paths(content, key):
        class_named(name, file, where)


def class_paths(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of ``class_path`` and ``_class_path`` with their keys, at any depth."""
    pending, seen = [(key, content)], set()
    while pending:
        where, value = pending.pop()
        if id(value) in seen:
            continue
        if isinstance(value, Mapping):
            inside: Iterable[tuple[Any, Any]] = value.items()
        elif isinstance(value, list | tuple):
            inside = enumerate(value)
        else:
            continue
        seen.add(id(value))
        for name, below in inside:
            path = f"{where}.{name}" if where else str(name)
            if name in ("class_path", CLASS_PATH):
                yield path, below
            pending.append((path, below))


@contextmanager
def only_trusted(file: Path) -> Iterator[None]:
    """Within the block jsonargparse imports nothing else, however a value of the file spells it.

    Raises:
        ValueError: on leaving, if something else was named.
    """
    from jsonargparse import set_parsing_settings

    global _restricted  # noqa: PLW0603  (as jsonargparse's rules are)
    outer, _restricted = _restricted, True
    try:
        with import_rules_given_back():
            set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(trusted()))
            yield
    except Exception as error:
        if denied := _DENIED.search(str(error)):
            raise ValueError(_refusal(file, denied.group(1), "a value")) from error
        raise
    finally:
        _restricted = outer


def _refusal(file: Path, name: str, key: str) -> str:
    package = name.partition(".")[0]
    return (
        f"{file}: {key} names {name}, and importing that could run any code, so it was not imported. The file may"
        " name classes of lit_vae, callbacks, torch.nn and torch.optim, and those of your own --config. If you know who"
        f" made the file: lit-vae ... --trust {package}, or {VARIABLE}={package}."
    )


def _defined_as(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
