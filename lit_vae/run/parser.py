"""The parser of ``lightning``, with short error messages."""

import ast
import contextlib
import difflib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lit_vae.run.config_folders import with_base
from lit_vae.run.errors import without_noise
from lit_vae.run.yaml_files import read_yaml, strictly

SECTIONS = ("trainer", "best_checkpoint", "last_checkpoint")
set_loader("yaml", strictly(get_loader("yaml")), (yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Prints errors in a few lines, with the nearest valid key if one is unknown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a configuration file; `read_yaml` refuses a bad one first, with a clearer error."""
        # each file by itself: the next one may hide the error
        check_sections(read_yaml(os.path.expanduser(path)), f"{path}: ")
        return super().parse_path(path, *args, **kwargs)

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse arguments. A value that jsonargparse passes on as Python text is turned back into YAML.

        For ``--model.realism.perceptual null``, jsonargparse 4.53 gives the parser of the model's arguments
        ``--realism.perceptual=None``, which in YAML is the text "None".
        """
        return super().parse_args(None if args is None else [_as_yaml(arg) for arg in args], *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message with a suggestion, and exit with code 2."""
        print(f"error: {with_suggestion(without_noise(message), sys.argv[1:], self)}", file=sys.stderr)
        sys.exit(2)


def _as_yaml(arg: str) -> str:
    """``--key=value`` with a Python value written as YAML; any other argument as it is."""
    key, is_given, value = arg.partition("=")
    try:
        return f"{key}={json.dumps(ast.literal_eval(value))}" if is_given else arg
    except (ValueError, SyntaxError, TypeError):
        return arg


def check_sections(config: Mapping[str, Any] | Namespace, where: str) -> None:
    """Refuse a section that is a number, a list or empty. The parser would accept it and ignore the section.

    Raises:
        ValueError: naming it.
    """
    for key in SECTIONS:
        if key in config and not isinstance(
            config[key], (Mapping, Namespace, str)
        ):  # text is the path of a file with the section
            raise ValueError(
                f"{where}{key} (={config[key]!r:.60}) must be a mapping of its settings. Change or remove it."
            )


def with_suggestion(message: str, args: list[str], parser: LightningArgumentParser) -> str:
    """Add the nearest valid key to a message about an unknown key, and the class to one about missing arguments.

    Valid keys are those of the parser and the arguments of every class that the configuration files name.
    """
    required = re.search(r"arguments are required: ([\w., ]+)", message)
    if required is not None:
        names = {name.rpartition(".")[2] for name in required.group(1).split(", ")}
        whose = [path for path, its in _arguments_of_classes(args).items() if names <= its]
        these = f"These are arguments of {' or '.join(whose)}" if whose else "A component without class_path needs them"
        return f"{message}\n{these}."
    missing = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", message)
    if missing:
        near = difflib.get_close_matches(
            missing.group(2), dir(importlib.import_module(missing.group(1))), n=1, cutoff=0.5
        )
        return f"{message}\nDid you mean {near[0]!r}?" if near else message
    unknown = re.search(r"(?:Option '|unrecognized arguments: --|Key ')([\w.]+)", message, re.IGNORECASE)
    if unknown is None or "Did you mean" in message:
        return message
    known = {part for option in re.findall(r"--([\w.]+)", parser.format_usage()) for part in option.split(".")}
    known = known.union(*_arguments_of_classes(args).values())
    for part in unknown.group(1).split("."):
        if part not in known and (near := difflib.get_close_matches(part, sorted(known), n=1)):
            return f"{message}\nDid you mean {near[0]!r} instead of {part!r}?"
    return message


def rows_alone(args: list[str]) -> list[str]:
    """For each configuration of a command line that is given without the ``base.yaml`` beside it: what to give."""
    files = [Path(arg.partition("=")[2] or arg) for arg in args if arg.endswith(".yaml")]
    said = []
    for file in files:
        if missing := [base for base in with_base(file)[:-1] if base not in files]:
            given = " ".join(f"--config {base}" for base in missing)
            said.append(f"{file} has only what differs from {' and '.join(map(str, missing))}: give {given} before it.")
    return said


def _arguments_of_classes(args: list[str]) -> dict[str, set[str]]:
    """The arguments of every class or function that a command line or its configuration files name."""
    found: dict[str, set[str]] = {}
    files = [Path(arg) for arg in args if arg.endswith((".yaml", ".yml", ".json"))]
    said = "\n".join([" ".join(args), *(file.read_text(errors="replace") for file in files if file.is_file())])
    for path in re.findall(r"class_path[:=]?\s*([\w.]+)", said):
        with contextlib.suppress(ImportError, AttributeError, ValueError, TypeError):
            found[path] = set(inspect.signature(pkgutil.resolve_name(path)).parameters)
    return found
