"""Which classes a file of a stranger may name. Any other class is refused before it is imported.

A checkpoint contains no code, but it names classes with their arguments, and to import or build a class runs code. The
same is true of the ``config.yaml`` of somebody else's run. See ``SECURITY.md``.
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
"""Packages whose classes a checkpoint may name, and the one schedule that Lightning's command line adds."""

_DENIED = re.compile(r"Importing '([\w.]+)' is not allowed, denied by")  # what jsonargparse says
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_named_by_user: set[str] = set()
_restricted = False


def forget_classes() -> None:
    """Forget the classes of earlier configurations; called when a command starts."""
    _named_by_user.clear()


def trust_classes_of(config: Any) -> None:
    """Trust the classes that the user's own configuration names, until the command ends."""
    if _restricted:  # the configuration is that of a stranger
        return
    for _, name in class_paths(config):
        if isinstance(name, str) and _NAME.fullmatch(name):
            _named_by_user.add(name)
            with suppress(ImportError, AttributeError):
                _named_by_user.add(_defined_as(_imported(name)))


def is_named_by_user(found: type) -> bool:
    """Whether the configuration of this command names a class, also as a default."""
    return _defined_as(found) in _named_by_user


def trusted() -> tuple[str, ...]:
    """Packages and classes that a stranger's file may name: `OURS`, those of the user's configuration, of `VARIABLE`.

    Raises:
        ValueError: the variable contains something that is not a name.
    """
    given = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if wrong := [name for name in given if not all(part.isidentifier() for part in name.split("."))]:
        raise ValueError(
            f"--trust, {VARIABLE}: {', '.join(wrong)} is not the name of a package or class. Give names such as"
            " mypackage, mypackage.networks or mypackage.networks.UNet, separated by commas."
        )
    return (*OURS, *sorted(_named_by_user), *given)


def is_trusted(name: str) -> bool:
    """Whether a class or function of that name may be imported."""
    return any(name == known or name.startswith(f"{known}.") for known in trusted())


def class_named(class_path: Any, file: Path, key: str) -> type:
    """The class ``package.module.Class`` that a file names at a key.

    Raises:
        ValueError: it, or the package that defines it, is not trusted; it does not exist; or it is not a class.
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
        raise ValueError(f"{file}: {key} is {class_path}: {error}. Install the package that defines it.") from error
    if not isinstance(found, type):
        raise ValueError(f"{file}: {key} (={class_path}) is not a class. Give another file.")
    if not is_trusted(_defined_as(found)):  # a trusted module may have imported it from another
        raise ValueError(_refusal(file, _defined_as(found), key))
    return found


def check_classes(content: Any, file: Path, key: str) -> None:
    """Check every class that nested values of a file name, before any is built.

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
    """Within the block, jsonargparse imports only trusted classes, however the file spells a name.

    Raises:
        ValueError: at the end, if another class was named.
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
        f"{file}: {key} names {name}, and importing that could run any code, so it was not imported. The file may name"
        " classes of lit_vae, callbacks, torch.nn, torch.optim and your own --config. If you trust the author of the"
        f" file: lit-vae ... --trust {package}, or {VARIABLE}={package}."
    )


def _defined_as(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _imported(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)
