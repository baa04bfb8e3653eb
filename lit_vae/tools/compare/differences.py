"""What compares: numbers (and which is the best of them), images, configurations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lit_vae.intervals import Estimate
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.metric_table import Metric, metric, ordered
from lit_vae.tools.compare.numbers import Number, paired

NO_PROTOCOL = frozenset(("seconds", "fd_pca64_of_training_images", "seed", "labels", "images"))
"""Keys of a recorded protocol that are not part of the protocol: results, time, seeds, descriptions."""

OF_A_SPLIT = ("num_images", "data_fingerprint")
"""Keys of the data that differ between the splits of one data set."""

SPLITS = {"test": "test", "val": "validation"}

Groups = Sequence[int | None]
"""For each run the index of the set of images that it was shown; None if no images could be read."""


@dataclass(frozen=True)
class Cell:
    """A number of a run.

    Args:
        number: the number.
        best: whether it is the best of those that compare.
        footnote: index of its footnote if it does not compare.
        tied: whether it is not the best, but other images of the same kind could make it so: the interval of its
            difference to the best holds zero.
    """

    number: Number
    best: bool = False
    footnote: int | None = None
    tied: bool = False


@dataclass(frozen=True)
class Column:
    """A metric, a cell for each run (None if it lacks the number), and the run that the others are compared with."""

    name: str
    metric: Metric
    cells: tuple[Cell | None, ...]
    reference: int

    def difference(self, i: int, to: int) -> Estimate | None:
        """The number of one run minus that of another, on the same images; None if it is not known."""
        mine, theirs = self.cells[i], self.cells[to]
        if i not in self.comparable or to not in self.comparable or mine is None or theirs is None:
            return None
        return paired(mine.number, theirs.number)

    @property
    def comparable(self) -> list[int]:
        """Indices of the runs whose numbers compare with each other."""
        return [i for i, cell in enumerate(self.cells) if cell is not None and cell.footnote is None]


@dataclass(frozen=True)
class ComparedNumbers:
    """A column for each metric, and the footnotes that cells point to."""

    columns: tuple[Column, ...]
    footnotes: tuple[str, ...]

    def column(self, name: str) -> Column | None:
        """The column of that name; None if no run has the number."""
        return next((column for column in self.columns if column.name == name), None)


def compare_numbers(entries: Sequence[Entry], groups: Groups) -> ComparedNumbers:
    """Compare the numbers of each metric with those of the run that most others agree with; the rest get footnotes."""
    footnotes: dict[str, int] = {}
    columns = []
    for name in ordered({name for entry in entries for name in entry.numbers}):
        numbers = [entry.numbers.get(name) for entry in entries]
        reference = _reference(numbers, groups)
        cells: list[Cell | None] = []
        for i, number in enumerate(numbers):
            if number is None:
                cells.append(None)
                continue
            other = numbers[reference]
            assert other is not None  # a reference has a number
            differing = differences(number, other, groups[i], groups[reference])
            note = None
            if differing:
                sentence = (
                    f"{entries[i].label} does not compare with {entries[reference].label}: {'; '.join(differing)}."
                )
                note = footnotes.setdefault(sentence, len(footnotes))
            cells.append(Cell(number, footnote=note))
        columns.append(Column(name, metric(name), _with_best(cells, metric(name)), reference))
    return ComparedNumbers(tuple(columns), tuple(footnotes))


def differences(mine: Number, theirs: Number, my_group: int | None = None, their_group: int | None = None) -> list[str]:
    """Why two numbers do not compare; empty if they do.

    Older runs record less of their images, so a key that only one of them has is no difference. Protocols must agree.
    """
    if not mine.split and not theirs.split:
        return []
    found = []
    if mine.split != theirs.split:
        found.append(f"of the {SPLITS[mine.split]} images, not of the {SPLITS[theirs.split]} images")
    found += _data_differences(mine, theirs, my_group, their_group)
    return found + protocol_differences(mine.protocol, theirs.protocol)


def protocol_differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys in which two protocols differ, with both values."""
    found = []
    for name in {**mine, **theirs}:
        a, b = (plain(how[name]) if name in how else "not recorded" for how in (mine, theirs))
        if a != b and name not in NO_PROTOCOL:
            found.append(f"{name}: {a} here, {b} there")
    return found


def image_differences(mine: Entry, theirs: Entry, my_group: int | None, their_group: int | None) -> list[str]:
    """Why two runs have different images; empty if they do not."""
    a, b = (next((n for n in e.numbers.values() if n.split), Number(0.0)) for e in (mine, theirs))
    return _data_differences(a, b, my_group, their_group)


def _data_differences(mine: Number, theirs: Number, my_group: int | None, their_group: int | None) -> list[str]:
    found = []
    for name, value in mine.data.items():
        other = theirs.data.get(name)
        counts_other_images = name in OF_A_SPLIT and mine.split != theirs.split
        if value is not None and other is not None and value != other and not counts_other_images:
            found.append(f"{name} {plain(value)}, not {plain(other)}")
    if not found and None not in (my_group, their_group) and my_group != their_group:
        found.append("its images are others")
    return found


def protocol_words(column: Column) -> str:
    """What the comparable numbers of a column were measured on, and how, in words; blank for what training cost."""
    cell = column.cells[column.reference]
    assert cell is not None  # a reference has a number
    number = cell.number
    if not number.split:
        return ""
    said = [str(number.data[name]) for name in ("data", "values") if number.data.get(name)]
    if shape := number.data.get("image_shape"):
        said.insert(1, " x ".join(map(str, shape)))
    beside = ("data", "image_shape", "values", "num_images")
    said += [
        f"{name} {plain(value)}" for name, value in number.data.items() if name not in beside and value is not None
    ]
    said += [f"{name} {plain(value)}" for name, value in number.protocol.items() if name not in NO_PROTOCOL]
    count = f"{number.data['num_images']:,} " if number.data.get("num_images") else ""
    return f"{count}{SPLITS[number.split]} images of {', '.join(said)}"


def _reference(numbers: Sequence[Number | None], groups: Groups) -> int:
    """The run that compares with the most others. Tested runs come first if two of them compare."""
    there = [i for i, number in enumerate(numbers) if number is not None]

    def weight(i: int) -> tuple[bool, int]:
        alike = sum(not differences(numbers[i], numbers[j], groups[i], groups[j]) for j in there)  # type: ignore[arg-type]
        return numbers[i].split == "test" and alike > 1, alike  # type: ignore[union-attr]

    return max(there, key=weight)  # `max` keeps the first


def _with_best(cells: Sequence[Cell | None], of: Metric) -> tuple[Cell | None, ...]:
    """The cells with the best ones marked; nothing is marked if fewer than two compare."""
    score = of.score
    compared = [cell for cell in cells if cell and cell.footnote is None]
    if score is None or len(compared) < 2:
        return tuple(cells)
    best = max((cell.number for cell in compared), key=lambda number: score(number.value))

    def marked(cell: Cell) -> Cell:
        if cell.footnote is not None or score(cell.number.value) == score(best.value):
            return replace(cell, best=cell.footnote is None)
        difference = paired(cell.number, best, score)
        return replace(cell, tied=difference is not None and not difference.is_certain)

    return tuple(cell and marked(cell) for cell in cells)


def plain(value: Any) -> str:
    """A value as text; a SHA-256 is shortened."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value):
        return value[:12]
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---- configurations --------------------------------------------------------------------------------------------------

_MISSING = object()


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Dotted keys whose values differ, and the value of each run; blank for a run without the key.

    If runs have different classes at a key, it shows each class with the arguments that only this class takes.
    Arguments that several of the classes take have rows of their own. Components in a list are matched by class.
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
    """The keys below a value; None if it is compared as a whole."""
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
    """A value on one line; a component as a call, without some of its arguments."""
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
