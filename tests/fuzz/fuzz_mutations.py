"""Edits of a complete configuration, of the kinds that people make, as strategies of hypothesis."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Path_ = tuple[str | int, ...]

NUMBERS = [math.nan, math.inf, -math.inf, -1, 0, 0.5, 1e30, 10**12, 2**63]
TEXTS = ["", "~", "%j", "null?", "Größe\n\u2028zwei", "a: [b", "${x}", "../..", "x" * 300, "nan", "1e400"]
WRONG_CLASSES = [
    "lit_vae.models.VEA",  # misspelt
    "lit_vae.modelz.VAE",
    "torch.nn.Linear",  # of another kind
    "lit_vae.quantizers.KMeans",
    "callbacks.Curves",
    "lit_vae.data.FakeImages",
    "lit_vae.images.levels",  # no class
    "math.pi",
    "os.system",
    "not_installed.Thing",
    "",
    ".",
    "lit_vae",
]
OVERLAYS = ["bf16", "debug", "tensorboard", "wandb"]
NOT_EDITED = {("trainer", key) for key in ("max_steps", "max_epochs", "devices", "num_nodes")}
"""Without the first two a run may rightly last for ever; the others ask for more machines."""
GOES_ELSEWHERE = {("trainer", "default_root_dir"), ("run_dir",), ("ckpt_path",)}


@dataclass(frozen=True)
class Edit:
    """One edit.

    Args:
        kind: of edit, for the table.
        at: where in the configuration.
        value: what is put there; for a key, its new name.
    """

    kind: str
    at: Path_
    value: Any = None

    def __str__(self) -> str:
        value = "" if self.kind in NO_VALUE else f" {self.value!r:.60}"
        return f"{self.kind} {'.'.join(map(str, self.at))}{value}"


NO_VALUE = {"drop", "double", "empty"}
MAY_NOT_PASS = {"misspell", "class"}
"""Kinds that no command may accept."""


@dataclass(frozen=True)
class Case:
    """A configuration and what is wrong with it.

    Args:
        base: name of the configuration.
        edits: of the file.
        options: settings on the command line, which win.
        overlays: shipped files laid over it.
    """

    base: str
    edits: tuple[Edit, ...] = ()
    options: tuple[Edit, ...] = ()
    overlays: tuple[str, ...] = ()
    beside: tuple[Edit, ...] = field(default=())  # settings in a second file

    @property
    def all(self) -> tuple[Edit, ...]:
        return self.edits + self.options + self.beside

    def __str__(self) -> str:
        parts = [*map(str, self.edits), *(f"--{edit}" for edit in self.options)]
        parts += [*(f"overlay {edit}" for edit in self.beside), *(f"overlay {name}" for name in self.overlays)]
        return f"{self.base}: {'; '.join(parts)}"


class Doubled(dict):
    """A mapping that says one key twice."""

    def __init__(self, mapping: dict[str, Any], key: str, value: Any) -> None:
        super().__init__(mapping)
        self.again = (key, value)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    Doubled, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", [*data.items(), data.again])
)


def text(tree: Any) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def places(tree: Any, at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every node below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        here = (*at, key)
        if here == ("trainer",):  # without its limits a run may rightly last for days
            yield from places(value, here)
        elif here[:2] not in NOT_EDITED and here[:2] not in GOES_ELSEWHERE and here[:1] not in GOES_ELSEWHERE:
            yield here, value
            yield from places(value, here)


def get(tree: Any, at: Path_) -> Any:
    return reduce(lambda part, key: part[key], at, tree)


def applied(tree: Any, edit: Edit) -> Any:
    """The configuration with an edit; what is gone by an earlier edit cannot be edited."""
    tree = copy.deepcopy(tree)
    *above, last = edit.at
    try:
        parent = get(tree, tuple(above))
        parent[last]
    except (KeyError, IndexError, TypeError):
        return tree
    if edit.kind in {"number", "text", "null", "list", "mapping", "class", "empty"}:
        parent[last] = copy.deepcopy(edit.value)
    elif edit.kind == "misspell":
        parent[edit.value] = parent.pop(last)
    elif edit.kind == "drop":
        del parent[last]
    elif edit.kind == "double":
        if isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        else:
            outer, doubled = tuple(above), Doubled(parent, last, parent[last])
            if not outer:
                return doubled
            get(tree, outer[:-1])[outer[-1]] = doubled
    elif edit.kind == "move":
        sibling = get(tree, tuple(above[:-1]))[edit.value]
        if isinstance(sibling, dict) and sibling is not parent:
            sibling[last] = parent.pop(last)
    return tree


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Places:
    """Where a configuration may be edited, by what stands there; likely places several times."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        nodes = list(places(tree))
        self.numbers = numbers = [node for node in nodes if _is_number(node[1])]
        classes = [node for node in nodes if node[0][-1] == "class_path"]
        listed = [node for node in nodes if isinstance(node[1], (dict, list)) or isinstance(node[0][-1], int)]
        self.groups = [group for group in (nodes, nodes, numbers, numbers, classes, listed) if group]

    def siblings(self, at: Path_) -> list[str]:
        """Mappings beside the one that a place is in."""
        above = get(self.tree, at[:-2]) if len(at) > 1 else None
        items = above.items() if isinstance(above, dict) else ()
        return [key for key, part in items if isinstance(part, dict) and key != at[-2]]

    def kinds(self, at: Path_, value: Any) -> list[str]:
        """What may be done at one of them; likely edits several times."""
        kinds = ["number", "text", "null", "list", "mapping"]
        if _is_number(value):
            kinds += ["number"] * 8
        if isinstance(value, (dict, list)):
            kinds.append("empty")
        if isinstance(value, dict) or isinstance(at[-1], int):
            kinds += ["double"] * 2
        if isinstance(at[-1], str):
            kinds += ["drop", "misspell", "misspell", *["move"] * bool(self.siblings(at))]
        if at[-1] == "class_path":
            kinds += ["class"] * 16
        return kinds


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.sampled_from(NUMBERS),
    "text": st.sampled_from(TEXTS) | st.text(max_size=8),
    "class": st.sampled_from(WRONG_CLASSES),
    "list": st.lists(st.sampled_from([0, -1, 1.5, math.nan, "a", None]), max_size=4),
    "mapping": st.dictionaries(st.sampled_from("ab"), st.none(), max_size=2),
}


def _misspelt(key: str) -> list[str]:
    doubled, cut, swapped = key + key[-1], key[:-1] or "x", key[1::-1] + key[2:]
    return [name for name in (doubled, cut, swapped, key.upper()) if name != key]


def _edit(draw: st.DrawFn, places: Places) -> Edit:
    at, value = draw(st.sampled_from(draw(st.sampled_from(places.groups))))
    kind = draw(st.sampled_from(places.kinds(at, value)))
    if kind in VALUES:
        return Edit(kind, at, draw(VALUES[kind]))
    if kind == "misspell":
        return Edit(kind, at, draw(st.sampled_from(_misspelt(str(at[-1])))))
    if kind == "move":
        return Edit(kind, at, draw(st.sampled_from(places.siblings(at))))
    return Edit(kind, at, type(value)() if kind == "empty" else None)


@st.composite
def cases(draw: st.DrawFn, bases: dict[str, Places]) -> Case:
    """One to three edits of one of the configurations."""
    base = draw(st.sampled_from(sorted(bases)))
    if draw(st.sampled_from([True, False, False, False])):  # what somebody may want, so that many are trained
        at, value = draw(st.sampled_from(bases[base].numbers))
        return Case(base, (Edit("number", at, type(value)(draw(st.sampled_from([2 * value, value / 2])))),))
    where: dict[str, list[Edit]] = {"edits": [], "options": [], "beside": []}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3]))):
        edit = _edit(draw, bases[base])
        movable = edit.kind in {"number", "null", "text", "class"} and not any(isinstance(key, int) for key in edit.at)
        where[draw(st.sampled_from(["edits", "options", "beside"])) if movable else "edits"].append(edit)
    overlays = draw(st.sampled_from([(), (), (), (), (), (), *((name,) for name in OVERLAYS)]))
    return Case(base, **{name: tuple(edits) for name, edits in where.items()}, overlays=overlays)


def written(case: Case, base: Any, folder: Path, overlays: Path) -> list[str]:
    """Write the files of a case; returns the arguments of ``lightning``."""
    tree = reduce(applied, case.edits, base)
    (folder / "mutated.yaml").write_text(text(tree))
    args = ["fit", "--config", "mutated.yaml"]
    if case.beside:
        over: dict[str, Any] = {}
        for edit in sorted(case.beside, key=lambda edit: -len(edit.at)):  # one may replace what lies around another
            part = reduce(lambda part, key: part.setdefault(key, {}), edit.at[:-1], over)
            part[edit.at[-1]] = edit.value
        (folder / "over.yaml").write_text(text(over))
        args += ["--config", "over.yaml"]
    for name in case.overlays:
        args += ["--config", str(overlays / f"{name}.yaml")]
    for edit in case.options:
        value = edit.value if isinstance(edit.value, str) else yaml.safe_dump(edit.value).split("\n")[0]
        args.append(f"--{'.'.join(map(str, edit.at))}={value}")
    return [*args, "--run_dir", "run"]
