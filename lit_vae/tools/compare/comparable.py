"""Which numbers compare, which of those is the best, and in what configurations differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_vae.tools.compare.gather import Entry, Number
from lit_vae.tools.compare.metrics import Metric, metric, ordered

NO_PROTOCOL = frozenset(("seconds", "fd_pca64_of_training_images"))
"""What is recorded beside a protocol: results, and what they took."""

Groups = Sequence[int | None]
"""For each run, which of the different sets of images it was shown; None where none could be read."""


@dataclass(frozen=True)
class Cell:
    """A number of a run, whether it is the best of those that compare, and the index of what must be said of it."""

    number: Number
    best: bool = False
    footnote: int | None = None


@dataclass(frozen=True)
class Column:
    """A metric, and a cell for each run, None where it has no such number."""

    name: str
    metric: Metric
    cells: tuple[Cell | None, ...]
    reference: int

    @property
    def comparable(self) -> list[int]:
        """The runs whose numbers compare with each other."""
        return [i for i, cell in enumerate(self.cells) if cell is not None and cell.footnote is None]


@dataclass(frozen=True)
class Comparison:
    """All columns, the footnotes that their cells point to, and what is said of no single number."""

    columns: tuple[Column, ...]
    footnotes: tuple[str, ...]

    def column(self, name: str) -> Column | None:
        """Of that name, if any run has it."""
        return next((column for column in self.columns if column.name == name), None)


def compare_numbers(entries: Sequence[Entry], groups: Groups) -> Comparison:
    """Columns in their order. In each, the numbers that compare with the most others stand undimmed."""
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
    return Comparison(tuple(columns), tuple(footnotes))


def differences(mine: Number, theirs: Number, my_group: int | None = None, their_group: int | None = None) -> list[str]:
    """Why two numbers do not compare; nothing where they do.

    What only one run says of its images is no difference, since older runs say less; a protocol must be the same.
    """
    if not mine.split and not theirs.split:
        return []
    found = [] if mine.split == theirs.split else [f"of the {mine.split} images, not of the {theirs.split} images"]
    known = {k: (mine.data[k], theirs.data[k]) for k in mine.data if _known(mine.data, k) and _known(theirs.data, k)}
    if mine.split != theirs.split:
        known.pop("num_images", None)
    found += [f"{name} {_plain(a)}, not {_plain(b)}" for name, (a, b) in known.items() if a != b]
    if my_group is not None and their_group is not None and my_group != their_group and not found:
        found.append("its images are others")
    names = [name for name in {**mine.protocol, **theirs.protocol} if name not in NO_PROTOCOL]
    for name in names:
        a, b = (_plain(protocol.get(name, "not recorded")) for protocol in (mine.protocol, theirs.protocol))
        if a != b:
            found.append(f"{name} {a}, not {b}")
    return found


def config_differences(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Dotted keys whose values are not the same in all runs, and the values; blank where a key is not there."""
    flat = [flatten(entry.records.config) for entry in entries]
    keys = dict.fromkeys(key for config in flat for key in config)
    values = {key: [config.get(key, "") for config in flat] for key in keys}
    return {key: row for key, row in sorted(values.items()) if len(set(row)) > 1}


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """A configuration as ``dotted.key: value``. A class stands at its own key, its arguments directly below."""
    if isinstance(config, Mapping) and "class_path" in config:
        arguments = flatten(config.get("init_args") or {}, prefix)
        return {prefix: str(config["class_path"]), **arguments}
    if isinstance(config, Mapping) and config:
        children = [(str(key), value) for key, value in config.items()]
    elif isinstance(config, list) and any(isinstance(value, Mapping) for value in config):
        children = [(_name_in_list(value, i), value) for i, value in enumerate(config)]
    else:
        return {prefix: _plain(config)}
    flat: dict[str, str] = {}
    for key, value in children:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat


def protocol_words(column: Column) -> str:
    """What the numbers of a column are of, in words; those that are dimmed are not meant."""
    cell = column.cells[column.reference]
    assert cell is not None  # a reference has a number
    number = cell.number
    data = [f"{name} {_plain(value)}" for name, value in number.data.items() if value is not None]
    how = [f"{name} {_plain(value)}" for name, value in number.protocol.items() if name not in NO_PROTOCOL]
    said = ", ".join([*data, *how])
    return f"{number.split} images" + (f" ({said})" if said else "")


def _reference(numbers: Sequence[Number | None], groups: Groups) -> int:
    """The run that compares with the most others; of several the first."""
    there = [i for i, number in enumerate(numbers) if number is not None]

    def alike(i: int) -> int:
        return sum(not differences(numbers[i], numbers[j], groups[i], groups[j]) for j in there)  # type: ignore[arg-type]

    return max(there, key=alike)  # `max` keeps the first


def _with_best(cells: Sequence[Cell | None], of: Metric) -> tuple[Cell | None, ...]:
    """The best marked, and all as good; none where fewer than two compare."""
    scores = {i: of.score(c.number.value) for i, c in enumerate(cells) if c and c.footnote is None and of.score}
    best = max(scores.values()) if len(scores) > 1 else None
    return tuple(
        Cell(cell.number, scores.get(i) == best, cell.footnote) if cell and best is not None else cell
        for i, cell in enumerate(cells)
    )


def _known(data: Mapping[str, Any], name: str) -> bool:
    return data.get(name) is not None


def _name_in_list(value: Any, index: int) -> str:
    """Of a component in a list: its class, which says more than its place, and compares with other lists."""
    path = value.get("class_path") if isinstance(value, Mapping) else None
    return str(index) if path is None else f"[{path.rpartition('.')[2]}]"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value):
        return value[:12]  # a SHA-256
    return f"{value:g}" if isinstance(value, float) else str(value)
