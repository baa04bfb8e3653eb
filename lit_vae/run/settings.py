"""The differences between two configurations, and paths in a configuration."""

import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace


def differences(was: Any, now: Any, key: str = "") -> Iterator[str]:
    """Settings that differ, each as ``key: old -> new`` with the key as the command line spells it."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*was, *now)):
            yield from differences(was.get(name), now.get(name), f"{key}.{name}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list):
        shared = min(len(was), len(now))
        if len(was) == len(now):
            for index in range(shared):
                yield from differences(was[index], now[index], f"{key}.{index}")
        else:
            same = next((index for index in range(shared) if was[index] != now[index]), shared)
            yield f"{key} from {same} on: {_short(was[same:])} -> {_short(now[same:])}"
    elif was != now:
        yield f"{key}: {_short(was)} -> {_short(now)}"


def _short(value: Any) -> str:
    """A value in at most 100 characters; for a list of components, their names."""
    if isinstance(value, list):
        value = [part.get("class_path", part) if isinstance(part, Mapping) else part for part in value]
    text = _BOUNDED.repr(value) if isinstance(value, (list, Mapping)) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


_BOUNDED = reprlib.Repr()
_BOUNDED.maxlist = _BOUNDED.maxdict = 50
_BOUNDED.maxstring = _BOUNDED.maxother = 100
"""With aliases, a YAML file of a few lines can be a value without end."""


def with_defaults(was: Any, defaults: Any) -> Any:
    """Settings, with defaults for those that are missing."""
    if isinstance(was, Mapping) and isinstance(defaults, Mapping) and _same_class(was, defaults):
        return {**defaults, **{name: with_defaults(value, defaults.get(name)) for name, value in was.items()}}
    if isinstance(was, list) and isinstance(defaults, list) and len(was) == len(defaults):
        return [with_defaults(*pair) for pair in zip(was, defaults, strict=True)]
    return was


def without_new(was: Any, now: Any) -> Any:
    """The settings ``now`` without those that do not exist in ``was``."""
    if isinstance(was, Mapping) and isinstance(now, Mapping) and _same_class(was, now):
        return {name: without_new(was[name], value) for name, value in now.items() if name in was}
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [without_new(*pair) for pair in zip(was, now, strict=True)]
    return now


def _same_class(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return was.get("class_path") == now.get("class_path")


def with_home(value: Any) -> Any:
    """Replace a leading ``~`` by the home directory, in every text of a configuration.

    A shell does so for ``--out ~/x``, but not for ``--out=~/x``. A ``~name`` without such a user stays as it is.
    """
    if isinstance(value, (str, Path)) and str(value).startswith("~"):
        return type(value)(os.path.expanduser(value))
    if isinstance(value, list):
        return [with_home(part) for part in value]
    if isinstance(value, dict):
        return {name: with_home(part) for name, part in value.items()}
    if isinstance(value, Namespace):
        return Namespace(**{name: with_home(part) for name, part in vars(value).items()})
    return value
