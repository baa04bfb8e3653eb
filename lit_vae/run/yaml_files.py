"""YAML as this project reads it: one mapping in a regular file of UTF-8, without what is almost surely a mistake."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 2**24
MOST_NODES = 50_000
"""Of a file with all its aliases written out. The largest configuration here has some 300."""
MOST_LEVELS = 60

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Refused(yaml.MarkedYAMLError):
    """YAML that would be read, but not as whoever wrote it means."""


@dataclass
class _Open:
    """A sequence or mapping that the text is in the middle of."""

    anchor: str | None = None
    is_mapping: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    nodes: int = 1
    children: int = 0


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
        ValueError: naming the file, and the line where there is one.
    """
    path = Path(path)
    text = read_text(path)
    try:
        check(text)
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {_words(error)}") from error
    if content is None:
        raise ValueError(f"{path}: the file is empty. Give a configuration (YAML).")
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, and must hold keys and values (YAML).")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path}: the key {odd[0]!r} must be a name.")
    return content


def read_text(path: Path) -> str:
    """The text of a regular file of UTF-8.

    Raises:
        ValueError: naming the file.
    """
    if (kind := special_kind(path)) or path.is_dir():
        raise ValueError(f"{path}: is a {kind or 'folder'}, not a regular file. Give a file.")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(
                f"{path}: has {size:,} bytes, and more than {MOST_BYTES:,} are not read. Give another file."
            )
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from error
    if data.startswith(_UTF16):
        raise ValueError(f"{path}: is UTF-16. Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}). Save it as UTF-8."
        ) from error


def special_kind(path: str | Path) -> str | None:
    """What a path is whose reading may never end: a pipe, a device, a socket. None for anything else."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # no such file; or no name of a file at all
        return None
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISCHR: "device", stat.S_ISBLK: "device", stat.S_ISSOCK: "socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), None)


def refuse_special_files(arguments: Sequence[str]) -> None:
    """Look at every path of a command line before anything opens it.

    Raises:
        ValueError: naming the option, and a path whose reading may never end.
    """
    before = ""
    for argument in arguments:
        option, is_joined, joined = argument.partition("=")
        named = argument.startswith("--") and bool(is_joined)
        value = joined if named else argument
        if value != os.devnull and (kind := special_kind(value)):
            raise ValueError(
                f"{option if named else before} {value}: is a {kind}. Give a regular file or a folder.".lstrip()
            )
        before = argument if argument.startswith("-") else ""


def strictly(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same loader of YAML text, which refuses what `check` does."""

    def checked(text: str) -> Any:
        if ":" in text or "*" in text or "[" in text:  # the others have neither keys, aliases nor levels
            check(text)
        return load(text)

    return checked


def check(text: str) -> None:
    """Refuse keys that are given twice, aliases that explode or refer to themselves, and bottomless nesting.

    Of events, one after the other: nothing is built or expanded.

    Raises:
        yaml.YAMLError: with the line.
    """
    sizes: dict[str, int] = {}
    stack = [_Open()]
    for event in yaml.parse(text, Loader=_Loader):
        inside = stack[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > MOST_LEVELS:
                raise Refused(
                    problem=f"more than {MOST_LEVELS} levels within each other", problem_mark=event.start_mark
                )
            stack.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = stack.pop()
            if done.anchor:
                sizes[done.anchor] = done.nodes
            _add(stack[-1], done.nodes, event)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise Refused(
                    problem=f"*{event.anchor} has no &{event.anchor} before it", problem_mark=event.start_mark
                )
            _add(inside, sizes[event.anchor], event)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                sizes[event.anchor] = 1
            if inside.is_mapping and inside.children % 2 == 0:
                if event.value in inside.lines:
                    raise Refused(
                        problem=f"the key {event.value!r} is given twice, first in line {inside.lines[event.value]}",
                        problem_mark=event.start_mark,
                    )
                inside.lines[event.value] = event.start_mark.line + 1
            _add(inside, 1, event)


def _add(inside: _Open, nodes: int, event: Any) -> None:
    inside.children += 1
    inside.nodes += nodes
    if inside.nodes > MOST_NODES:
        raise Refused(
            problem=f"more than {MOST_NODES:,} values, with all aliases (*name) written out",
            problem_mark=event.start_mark,
        )


def _words(error: yaml.YAMLError) -> str:
    """What is wrong, and where, on one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}{'' if isinstance(error, Refused) else 'not YAML: '}{problem}."
