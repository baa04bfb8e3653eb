"""What is right of a command with a mutated configuration: it trains on that, or says in words what is wrong."""

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from fuzz_mutations import MAY_NOT_PASS, Case, Edit, get
from fuzz_workers import Ended

LINES = 25
STOPPED = re.compile(r"is not finite at step|not finite: ")
"""What cannot name a setting: a loss that has grown beyond all numbers."""


def faults(case: Case, base: Any, folder: Path, ended: Ended) -> list[str]:
    """What was wrong with the way in which a command ended, one line each; empty: nothing."""
    if ended.code is None:
        return ["hang"]
    if ended.code < 0:
        return [f"killed by signal {-ended.code}"]
    left = sorted(path.name for path in folder.iterdir() if path.name not in {"mutated.yaml", "over.yaml", "run"})
    found = [f"left behind: {left}"] if left else []
    return found + (_of_a_success(case, folder) if ended.code == 0 else _of_a_refusal(case, base, folder, ended))


def _of_a_refusal(case: Case, base: Any, folder: Path, ended: Ended) -> Iterator[str]:
    found = []
    if ended.code not in {1, 2}:
        found.append(f"exit code {ended.code}")
    if "Traceback" in ended.err + ended.out:
        found.append("traceback: " + innermost(ended.err))
        return found
    said = ended.err[ended.err.rfind("error:") :] if "error:" in ended.err else ended.err
    if len(ended.err.splitlines()) > LINES:
        found.append(f"{len(ended.err.splitlines())} lines")
    if "error:" not in ended.err:
        found.append("no error: in what it says")
    elif not STOPPED.search(said) and not any(word.lower() in said.lower() for word in words(case, base)):
        found.append("names nothing that was changed")
    record = folder / "run" / "run.json"
    if (folder / "run").exists() and not (record.exists() and json.loads(record.read_text())["status"] == "failed"):
        found.append("leaves a run directory: " + " ".join(sorted(path.name for path in (folder / "run").iterdir())))
    return found


def _of_a_success(case: Case, folder: Path) -> list[str]:
    run, found = folder / "run", []
    if not (run / "run.json").exists():
        return ["accepted, and no run.json"]
    status = json.loads((run / "run.json").read_text())["status"]
    if status != "finished":
        found.append(f"accepted, and run.json says {status}")
    if (run / "metrics.csv").exists():
        with (run / "metrics.csv").open(newline="") as file:
            numbers = {name for row in csv.DictReader(file) for name, cell in row.items() if cell and not finite(cell)}
        if numbers:
            found.append(f"accepted NaN: metrics.csv {sorted(numbers)[:4]}")
    for path in (run / "checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        spoilt = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
        if spoilt:
            found.append(f"accepted NaN: {path.name} {spoilt[:2]}")
    found += [
        f"accepted: {edit.kind}" for edit in case.all if edit.kind in MAY_NOT_PASS and not _another_callback(edit)
    ]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    if not case.overlays:
        given = [edit for edit in case.edits + case.beside if not _replaced(edit, case)]
        odd = [edit for edit in given if isinstance(edit.value, float) and not math.isfinite(edit.value)]
        found += [f"accepted NaN: {edit}" for edit in odd]
        lost = [edit.kind for edit in given if not _holds(saved, edit)]
        found += [f"config.yaml does not hold what was given: {kind}" for kind in lost]
    return found


def _another_callback(edit: Edit) -> bool:
    """Whether it puts a callback in the place of one, which is right where the arguments of the other suit it."""
    return edit.kind == "class" and edit.at[:2] == ("trainer", "callbacks") and edit.value.startswith("callbacks.")


def _replaced(edit: Edit, case: Case) -> bool:
    """Whether another edit changes what lies around it."""
    return any(other.at != edit.at and other.at == edit.at[: len(other.at)] for other in case.all)


def _holds(saved: Any, edit: Edit) -> bool:
    """Whether a configuration has the value that was given; of a seed that is left open, the one that was drawn."""
    if edit.kind not in {"number", "text", "null"} or edit.at == ("seed_everything",):
        return True
    try:
        value = get(saved, edit.at)
    except (KeyError, IndexError, TypeError):
        return edit.value is None
    if isinstance(edit.value, (int, float)) and isinstance(value, (int, float)):
        return float(value) == float(edit.value)
    return value == edit.value or str(value) == str(edit.value)


def words(case: Case, base: Any) -> set[str]:
    """What a message may name: a key that was changed, its component, its section, or a file that is not the base.

    Or another component: where two sizes do not agree, nobody knows which of them is wrong.
    """
    named = {*case.overlays, *_components(base)}
    for edit in case.all:
        keys = [key for key in edit.at if isinstance(key, str) and key not in {"init_args", "class_path"}]
        named |= {keys[-1], *({keys[0]} - {"model", "data"})}  # those say too little of what lies within
        if edit.kind in {"class", "misspell"} and edit.value:
            named.add(edit.value)
        if edit.kind == "empty":
            named.add("class_path")
        if edit.kind == "double":
            named.add(str(edit.at[-1]))
        if edit.kind == "move":
            named.add(edit.value)
            if edit.at[-1] == "class_path":  # the class comes to the arguments of a neighbour, which it does not take
                neighbour = get(base, (*edit.at[:-2], edit.value))
                named |= set((neighbour.get("init_args") if isinstance(neighbour, dict) else None) or {})
        # what is within, or belongs to a class_path: another class does not take these, and this one misses them
        within = get(base, edit.at[:-1]).get("init_args") if edit.at[-1] == "class_path" else get(base, edit.at)
        named |= set(within) if isinstance(within, dict) else set()
        if isinstance(edit.value, dict):
            named |= {f"'{key}'" for key in edit.value}
        component = None
        for depth in range(len(edit.at) + 1):
            part = get(base, edit.at[:depth])
            if isinstance(part, dict) and "class_path" in part:
                component = part["class_path"].rsplit(".", 1)[-1]
        named |= {component} - {None}
    return named


def _components(tree: Any) -> set[str]:
    """The names of all classes, with the colon after which they say what is wrong."""
    if isinstance(tree, list):
        return set().union(*map(_components, tree))
    if not isinstance(tree, dict):
        return set()
    own = {f"{tree['class_path'].rpartition('.')[2]}: "} if isinstance(tree.get("class_path"), str) else set()
    return own.union(*map(_components, tree.values()))


def finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def innermost(err: str) -> str:
    """The last frame of ours, the last frame, and the error: what two tracebacks of one fault share."""
    lines = err[err.rfind("Traceback") :].splitlines()
    frames = [line.strip() for line in lines if line.startswith('  File "')]
    short = [_short(frame) for frame in frames]
    ours = [frame for frame in short if frame.startswith(("lit_vae/", "callbacks/"))]
    errors = [line for line in lines if line and not line.startswith(" ") and not line.startswith("Traceback")]
    return f"{(errors or ['?'])[0][:160]} | {ours[-1] if ours else '-'} | {short[-1] if short else '-'}"


def _short(frame: str) -> str:
    path, line, function = (part.strip() for part in frame.removeprefix('File "').replace('"', "").split(","))
    for root in ("site-packages/", "lit_vae/", "callbacks/"):
        if f"/{root}" in path:
            path = (root if root != "site-packages/" else "") + path.rsplit(f"/{root}", 1)[1]
            break
    return f"{path}:{line.removeprefix('line ')} {function}"
