"""Ranges of numbers, stated once in the annotations of arguments.

``variance: PositiveFloat`` is a float for readers, mypy and the command line. `checked` makes a constructor enforce its
annotations. `problems_in` checks a whole configuration before anything is built, and names each setting as in the YAML.
Every number of a configuration must be finite, annotated or not.
"""

import contextlib
import functools
import inspect
import operator
import pkgutil
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Within:
    """Bounds of a number, in ``Annotated[float, Within(ge=0.0, lt=1.0)]``.

    The parser would check those of annotated-types itself, with errors that name neither component nor setting.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


LARGEST = 3.4028234663852886e38
"""The largest float32: a network treats larger numbers as infinite."""

MOST = 2**31 - 1
"""The largest plausible size or count."""

PositiveInt = Annotated[int, Within(ge=1, le=MOST)]
NotNegativeInt = Annotated[int, Within(ge=0, le=MOST)]
SmallCount = Annotated[int, Within(ge=1, le=10_000)]
"""Layers, pictures, mixture components: each costs memory and time, so a larger number is a typing error."""
AtLeastTwo = Annotated[int, Within(ge=2, le=MOST)]
AtLeastThree = Annotated[int, Within(ge=3, le=MOST)]
Steps = Annotated[int, Within(ge=2, le=10_000)]
Workers = Annotated[int, Within(ge=0, le=1024)]
Seed = Annotated[int, Within(ge=0, le=2**63 - 1)]

PositiveFloat = Annotated[float, Within(gt=0.0, le=LARGEST)]
NotNegativeFloat = Annotated[float, Within(ge=0.0, le=LARGEST)]
UnitInterval = Annotated[float, Within(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Within(gt=0.0, le=1.0)]
AboveHalf = Annotated[float, Within(gt=0.5, lt=1.0)]
OpenUnitInterval = Annotated[float, Within(gt=0.0, lt=1.0)]
BelowOne = Annotated[float, Within(ge=0.0, lt=1.0)]

Ranges = Mapping[type, Mapping[str, Any]]
"""Annotations for arguments of classes that have none of their own, and of their subclasses."""

_LIMITS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "ge": (operator.ge, "at least"),
    "gt": (operator.gt, "greater than"),
    "le": (operator.le, "at most"),
    "lt": (operator.lt, "less than"),
}
_PLAIN = {int: "a number", float: "a number", bool: "true or false", str: "text"}
_OMITTED_BOUNDS = (-LARGEST, LARGEST, MOST, 10_000, 1024, 2**63 - 1)  # messages mention these bounds only if exceeded

P = ParamSpec("P")


@dataclass(frozen=True)
class ValueProblem:
    """A value that an argument may not have: its component, argument and key in the configuration."""

    component: str
    argument: str
    value: float | Mapping[str, Any] | None
    expected: str
    key: str

    def __str__(self) -> str:
        return f"{self.component}: {self.argument} (={self.value!r}) must be {self.expected}."


def checked(init: Callable[P, None]) -> Callable[P, None]:
    """Make a constructor raise ValueError for numbers outside the ranges in its annotations, and for other values than
    those of a ``Literal``.

    The error names the class, the argument, the value and what was expected.
    """
    signature = inspect.signature(init)
    hints = functools.cache(lambda: get_type_hints(init, include_extras=True))

    @functools.wraps(init)
    def within_ranges(*args: P.args, **kwargs: P.kwargs) -> None:
        given = dict(signature.bind(*args, **kwargs).arguments)
        check_arguments(given.pop("self"), given, hints())
        init(*args, **kwargs)

    return within_ranges


def check_arguments(component: object, given: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments of a component that are out of range, or none of the values of a ``Literal``."""
    name = type(component).__name__
    problems = [str(p) for a, value in given.items() for p in _numbers(value, hints.get(a, Any), name, a, a, {})]
    for argument, value in given.items():
        values = _values_of(hints.get(argument))
        if values and value not in values:
            expected = ", ".join("null" if each is None else str(each) for each in values)
            problems.append(f"{name}: {argument} (={value!r}) must be one of {expected}.")
    if problems:
        raise ValueError("\n".join(problems))


def _values_of(hint: Any) -> list[Any]:
    """The values that an annotation lists: those of ``Literal["a", "b"] | None``. Empty for any other annotation."""
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if not all(get_origin(part) is Literal or part is types.NoneType for part in parts):
        return []
    return [value for part in parts for value in get_args(part) or (None,)]


def problems_in(config: Mapping[str, Any], kinds: Mapping[str, Any], others: Ranges) -> list[ValueProblem]:
    """All numbers of a configuration that are not finite or out of range.

    A component is a mapping with ``class_path`` and ``init_args``. ``kinds`` are annotations of top-level entries
    without one, such as the trainer's class; ``others`` are ranges for classes that do not state them.
    """
    return [
        problem
        for name, value in config.items()
        for problem in _numbers(value, kinds.get(name, Any), "configuration", name, name, others)
    ]


def _numbers(value: Any, hint: Any, component: str, argument: str, key: str, others: Ranges) -> Iterator[ValueProblem]:
    """Problems of a value: a number, a list of numbers, or a component with arguments."""
    if isinstance(value, Mapping):
        kind, arguments, below = _class_in(hint), value, key
        if "class_path" in value:
            # the parser has already imported it
            kind, below = pkgutil.resolve_name(value["class_path"]), f"{key}.init_args"
            arguments = {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}
        hints = _hints_of(kind, others)
        component = getattr(kind, "__name__", component)
        own = _hints_of(kind, {})
        for name, inner in arguments.items():
            if inner is None and (what := _never_null(own.get(name))) and not _is_null_by_default(kind, name):
                # the parser accepts null for any type
                yield ValueProblem(component, name, None, f"{what}, not null", f"{below}.{name}")
            if isinstance(inner, Mapping) and _is_factory(own.get(name)) and _names_no_class(inner):
                yield ValueProblem(component, name, {}, "a component with a class_path", f"{below}.{name}")
            yield from _numbers(inner, hints.get(name, Any), component, name, f"{below}.{name}", others)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, _hint_of_item(hint, index), component, argument, f"{key}.{index}", others)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        limits = list(_limits(hint))
        finite = abs(value) <= LARGEST
        broken = [(way, bound) for way, bound in limits if not _LIMITS[way][0](value, bound)]
        if not finite or broken:
            said = [limit for limit in limits if limit[1] not in _OMITTED_BOUNDS or (finite and limit in broken)]
            words = [] if finite else ["a finite number"]
            words += [
                f"{_LIMITS[way][1]} {bound if isinstance(bound, int) else format(bound, 'g')}" for way, bound in said
            ]
            yield ValueProblem(component, argument, value, " and ".join(words), key)


def _never_null(hint: Any) -> str | None:
    """What a value is, in words, if its annotation is that of a plain type."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return _PLAIN.get(plain) if isinstance(plain, type) else None


def _is_factory(hint: Any) -> bool:
    """Whether an annotation is that of a callable, perhaps an optional one."""
    return any(get_origin(part) is Callable for part in (hint, *get_args(hint)))


def _names_no_class(part: Mapping[str, Any]) -> bool:
    """Whether a part names no class; the parser takes an annotation such as ``typing.Union`` for one then."""
    return str(part.get("class_path", "typing.")).startswith("typing.")


def _is_null_by_default(kind: Any, argument: str) -> bool:
    parameter = inspect.signature(kind).parameters.get(argument)
    return parameter is not None and parameter.default is None


def _hints_of(kind: Any, others: Ranges) -> dict[str, Any]:
    """Annotations of the constructor's arguments, including those of base classes."""
    hints: dict[str, Any] = {}
    bases = inspect.getmro(kind)[::-1] if inspect.isclass(kind) else [kind]
    for base in bases:
        with contextlib.suppress(NameError, TypeError, AttributeError):  # names that only a type checker imports
            hints |= get_type_hints(vars(base).get("__init__") if inspect.isclass(base) else base, include_extras=True)
    for base in bases:
        hints |= others.get(base, {})
    return hints


def _class_in(hint: Any) -> Any:
    """The class in an annotation, whose arguments are given by a mapping without a ``class_path``, if any."""
    metadata = getattr(hint, "__metadata__", ())
    return next((part for part in (*metadata, *get_args(hint), hint) if inspect.isclass(part)), None)


def _hint_of_item(hint: Any, index: int) -> Any:
    """The annotation of an item; an annotation of a single number applies to each item."""
    if get_origin(hint) in (Union, types.UnionType):
        found = [_hint_of_item(part, index) for part in get_args(hint)]
        return next((part for part in found if part is not Any), Any)
    if get_origin(hint) is Annotated:
        return hint
    items = [part for part in get_args(hint) if part is not ...]
    return items[min(index, len(items) - 1)] if items else Any


def _limits(hint: Any) -> Iterator[tuple[str, float]]:
    """Bounds in an annotation, such as ("ge", 0.0), including those in each part of a union."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _limits(part)
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Within):
            yield from ((way, bound) for way in _LIMITS if (bound := getattr(part, way)) is not None)
