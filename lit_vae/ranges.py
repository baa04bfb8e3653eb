"""Ranges of numbers, stated once: in the annotation of the argument that takes them.

``variance: PositiveFloat`` is a float to a reader, to mypy and to the command line. `checked` holds a constructor to
its annotations, whoever calls it; `problems_in` holds a whole configuration to them before anything of it is built, and
names each setting as the YAML spells it. Every number of a configuration must be finite, annotated or not.
"""

import contextlib
import functools
import importlib
import inspect
import operator
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Within:
    """Bounds of a number, in ``Annotated[float, Within(ge=0.0, lt=1.0)]``.

    Not those of annotated-types: the parser would check them itself and name neither component nor setting.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


LARGEST = 3.4028234663852886e38
"""The largest float32: what is above it is infinite to a network."""

MOST = 2**31 - 1
"""The largest size or count that can be meant."""

PositiveInt = Annotated[int, Within(ge=1, le=MOST)]
NotNegativeInt = Annotated[int, Within(ge=0, le=MOST)]
SmallCount = Annotated[int, Within(ge=1, le=10_000)]
"""Layers, pictures, mixture components: each one costs memory and time, so more than that is a slip of the pen."""
AtLeastTwo = Annotated[int, Within(ge=2, le=MOST)]
AtLeastThree = Annotated[int, Within(ge=3, le=MOST)]
Steps = Annotated[int, Within(ge=2, le=10_000)]
Workers = Annotated[int, Within(ge=0, le=1024)]
Seed = Annotated[int, Within(ge=0, le=2**63 - 1)]

AnyFloat = Annotated[float, Within(ge=-LARGEST, le=LARGEST)]
PositiveFloat = Annotated[float, Within(gt=0.0, le=LARGEST)]
NotNegativeFloat = Annotated[float, Within(ge=0.0, le=LARGEST)]
UnitInterval = Annotated[float, Within(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Within(gt=0.0, le=1.0)]
AboveHalf = Annotated[float, Within(gt=0.5, lt=1.0)]
OpenUnitInterval = Annotated[float, Within(gt=0.0, lt=1.0)]
BelowOne = Annotated[float, Within(ge=0.0, lt=1.0)]

Ranges = Mapping[type, Mapping[str, Any]]
"""Annotations for arguments of classes that have none of their own; they hold for subclasses, too."""

_LIMITS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "greater than"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "less than"),
}
OURS = ("lit_vae.", "callbacks.")  # classes of others may mean a default by an unsaid null
_UNSAID = (-LARGEST, LARGEST, MOST, 10_000, 1024, 2**63 - 1)  # worth a word only where they are exceeded

P = ParamSpec("P")


@dataclass(frozen=True)
class NumberProblem:
    """A number that cannot be meant: of which argument of which component, and its place in the configuration."""

    component: str
    argument: str
    value: float | None
    expected: str
    key: str

    def __str__(self) -> str:
        return f"{self.component}: {self.argument} (={self.value!r}) must be {self.expected}."


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Let a constructor refuse numbers outside of the ranges that its arguments are annotated with.

    It then raises ValueError, which names its class, the argument, what came and what was expected.
    """
    signature = inspect.signature(init)
    hints = functools.cache(lambda: get_type_hints(init, include_extras=True))

    @functools.wraps(init)
    def within_ranges(*args: P.args, **kwargs: P.kwargs) -> None:
        given = dict(signature.bind(*args, **kwargs).arguments)
        check_numbers(given.pop("self"), given, hints())
        init(*args, **kwargs)

    return within_ranges


def check_numbers(component: object, given: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments of a component that are out of their ranges."""
    name = type(component).__name__
    problems = [p for a, value in given.items() for p in _numbers(value, hints.get(a, Any), name, a, a, {})]
    if problems:
        raise ValueError("\n".join(map(str, problems)))


def problems_in(config: Mapping[str, Any], kinds: Mapping[str, type], others: Ranges) -> list[NumberProblem]:
    """All numbers of a configuration that are not finite or not within their range.

    Args:
        config: plain; a component is a mapping with ``class_path`` and ``init_args``.
        kinds: the classes whose arguments stand at the top without a ``class_path``, such as the trainer's.
        others: ranges of classes that do not state them.
    """
    return [
        problem
        for name, value in config.items()
        for problem in _numbers(value, kinds.get(name, Any), name, name, name, others)
    ]


def _numbers(value: Any, hint: Any, component: str, argument: str, key: str, others: Ranges) -> Iterator[NumberProblem]:
    """What is wrong with a value: a number, numbers in lists, or a component with arguments of its own."""
    if isinstance(value, Mapping):
        kind, arguments, below = _class_in(hint), value, key
        if "class_path" in value:
            kind, below = _found(value["class_path"]), f"{key}.init_args"
            arguments = {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}
        hints = _hints_of(kind, others)
        component = getattr(kind, "__name__", component)
        own = _hints_of(kind, {}) if getattr(kind, "__module__", "").startswith(OURS) else {}
        for name, inner in arguments.items():
            if inner is None and _is_number(own.get(name)):  # the parser takes a null for anything
                yield NumberProblem(component, name, None, "a number, not null", f"{below}.{name}")
            yield from _numbers(inner, hints.get(name, Any), component, name, f"{below}.{name}", others)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, _hint_of_item(hint, index), component, argument, f"{key}.{index}", others)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        limits = list(_limits(hint))
        finite = abs(value) <= LARGEST
        broken = [(way, bound) for way, bound in limits if not _LIMITS[way][0](value, bound)]
        if not finite or broken:
            said = [limit for limit in limits if limit[1] not in _UNSAID or (finite and limit in broken)]
            words = [] if finite else ["a finite number"]
            words += [
                f"{_LIMITS[way][1]} {bound if isinstance(bound, int) else format(bound, 'g')}" for way, bound in said
            ]
            yield NumberProblem(component, argument, value, " and ".join(words), key)


def _is_number(hint: Any) -> bool:
    return (get_args(hint)[0] if get_origin(hint) is Annotated else hint) in (int, float)


def _found(path: str) -> Any:
    """What a ``class_path`` names; the parser has imported it already."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:  # within a class
        return getattr(_found(module), name)


def _hints_of(kind: Any, others: Ranges) -> dict[str, Any]:
    """Annotations of the constructor's arguments, those of its bases included."""
    hints: dict[str, Any] = {}
    bases = inspect.getmro(kind)[::-1] if inspect.isclass(kind) else [kind]
    for base in bases:
        with contextlib.suppress(NameError, TypeError, AttributeError):  # names that only a type checker imports
            hints |= get_type_hints(vars(base).get("__init__") if inspect.isclass(base) else base, include_extras=True)
    for base in bases:
        hints |= others.get(base, {})
    return hints


def _class_in(hint: Any) -> Any:
    """The class whose arguments a mapping without a ``class_path`` holds, if the annotation names any."""
    metadata = getattr(hint, "__metadata__", ())
    return next((part for part in (*metadata, *get_args(hint), hint) if inspect.isclass(part)), None)


def _hint_of_item(hint: Any, index: int) -> Any:
    """The annotation of an item; that of a single number holds for each of several."""
    if get_origin(hint) in (Union, types.UnionType):
        found = [_hint_of_item(part, index) for part in get_args(hint)]
        return next((part for part in found if part is not Any), Any)
    if get_origin(hint) is Annotated:
        return hint
    items = [part for part in get_args(hint) if part is not ...]
    return items[min(index, len(items) - 1)] if items else Any


def _limits(hint: Any) -> Iterator[tuple[str, float]]:
    """Bounds that an annotation states, those of each part of a union: ("ge", 0.0)."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _limits(part)
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Within):
            yield from ((way, bound) for way in _LIMITS if (bound := getattr(part, way)) is not None)
