"""In what configurations differ, and in nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from lit_vae.tools.compare.comparable import plain

_MISSING = object()


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted keys whose values are not the same everywhere, and the values; blank where there is no such key.

    A component stands at its own key, with the arguments that no other class takes. Arguments that several classes take
    are compared one by one, by those that take them. Components in a list are found by their class.
    """
    return dict(sorted(_differing("", list(configs)).items()))


def _differing(key: str, values: list[Any]) -> dict[str, list[str]]:
    if not _differs(values):
        return {}
    children = [_children(value) for value in values]
    if any(child is None for child in children):
        return {key: [_words(value) for value in values]}
    known = [child for child in children if child is not None]
    names = list(dict.fromkeys(name for child in known for name in child))
    found: dict[str, list[str]] = {}
    classes = [_class(value) for value in values]
    if len(set(classes)) > 1:
        shared = [
            name for name in names if len({c for c, child in zip(classes, known, strict=True) if name in child}) > 1
        ]
        found[key] = [_words(value, without=shared) for value in values]
        names = [name for name in shared if _differs([child[name] for child in known if name in child])]
    for name in names:
        below = [child.get(name, _MISSING) for child in known]
        found |= _differing(f"{key}.{name}" if key else name, below)
    return found


def _differs(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _children(value: Any) -> dict[str, Any] | None:
    """What is below a value; None where it is to be taken as a whole."""
    if isinstance(value, Mapping):
        return dict(value.get("init_args") or {} if "class_path" in value else value)
    if isinstance(value, list) and value and all(_class(item) for item in value):
        children: dict[str, Any] = {}
        for item in value:
            name = _class(item).rpartition(".")[2]
            again = sum(known == name or known.startswith(f"{name} ") for known in children)
            children[f"{name} {again + 1}" if again else name] = item
        return children
    return None


def _class(value: Any) -> str:
    return str(value.get("class_path", "")) if isinstance(value, Mapping) else ""


def _words(value: Any, without: Sequence[str] = ()) -> str:
    """A value on one line; a component as it would be called, without some of its arguments."""
    if value is _MISSING:
        return ""
    if _class(value):
        arguments = value.get("init_args") or {}
        given = ", ".join(f"{k}={_words(v)}" for k, v in arguments.items() if k not in without)
        return f"{_class(value)}({given})" if given else _class(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_words(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_words, value)) + "]"
    return plain(value)
