"""YAML files: one mapping in a regular UTF-8 file, and an error for what is almost surely a mistake."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 2**24
MAX_NODES = 50_000
"""The limit for a file with all its aliases written out. The largest shipped configuration has about 300."""
MAX_LEVELS = 60

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Refused(yaml.MarkedYAMLError):
    """YAML that can be read, but surely does not say what its author meant."""


@dataclass
class _Open:
    """A sequence or mapping whose end is not reached yet."""

    anchor: str | None = None
    is_mapping: bool = False
    lines: dict[str, int] = field(default_factory=dict)
    nodes: int = 1
    children: int = 0


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a file.

    Raises:
        ValueError: naming the file and, if known, the line.
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
        raise ValueError(f"{path}: contains a {type(content).__name__}, and must contain keys and values (YAML).")
    if odd := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path}: the key {odd[0]!r} must be a name.")
    return content


def read_text(path: Path) -> str:
    """Read the text of a regular UTF-8 file.

    Raises:
        ValueError: naming the file.
    """
    if (kind := special_kind(path)) or path.is_dir():
        raise ValueError(f"{path}: is a {kind or 'folder'}, not a regular file. Give a file.")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"{path}: has {size:,} bytes, more than the limit of {MAX_BYTES:,}. Give another file.")
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
    """The kind of a path that might be read without end: a pipe, a device, a socket. None for any other path."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # no such file, or not the name of a file
        return None
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISCHR: "device", stat.S_ISBLK: "device", stat.S_ISSOCK: "socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), None)


def refuse_special_files(arguments: Sequence[str]) -> None:
    """Check every path of a command line before it is opened.

    Raises:
        ValueError: naming the option and a path that might be read without end.
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
    """A loader of YAML text that also refuses what `check` refuses."""

    def checked(text: str) -> Any:
        if ":" in text or "*" in text or "[" in text:  # without these there are no keys, aliases or levels
            check(text)
        return load(text)

    return checked


def check(text: str) -> None:
    """Refuse repeated keys, aliases that explode or refer to themselves, and nesting without end.

    Reads the events of the parser one by one, so nothing is built or expanded.

    Raises:
        yaml.YAMLError: with the line.
    """
    sizes: dict[str, int] = {}
    stack = [_Open()]
    for event in yaml.parse(text, Loader=_Loader):
        inside = stack[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            if len(stack) > MAX_LEVELS:
                raise Refused(problem=f"more than {MAX_LEVELS} nested levels", problem_mark=event.start_mark)
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
    if inside.nodes > MAX_NODES:
        raise Refused(
            problem=f"more than {MAX_NODES:,} values, with all aliases (*name) written out",
            problem_mark=event.start_mark,
        )


def _words(error: yaml.YAMLError) -> str:
    """The problem and its place, in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}{'' if isinstance(error, Refused) else 'not YAML: '}{problem}."
