"""Which numbers compare, and which of those is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.metrics import Metric, metric, ordered
from lit_vae.tools.compare.numbers import Number

NO_PROTOCOL = frozenset(("seconds", "fd_pca64_of_training_images", "seed", "labels", "images"))
"""What is recorded beside a protocol: results, what they took, what is random, what a family shows as its samples."""

OF_A_SPLIT = ("num_images", "data_fingerprint")
"""What is known of the images of one split alone."""

SPLITS = {"test": "test", "val": "validation"}

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
    found = []
    if mine.split != theirs.split:
        found.append(f"of the {SPLITS[mine.split]} images, not of the {SPLITS[theirs.split]} images")
    found += _data_differences(mine, theirs, my_group, their_group)
    return found + protocol_differences(mine.protocol, theirs.protocol)


def protocol_differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two measurements did not do alike."""
    found = []
    for name in {**mine, **theirs}:
        a, b = (plain(how[name]) if name in how else "not recorded" for how in (mine, theirs))
        if a != b and name not in NO_PROTOCOL:
            found.append(f"{name}: {a} here, {b} there")
    return found


def image_differences(mine: Entry, theirs: Entry, my_group: int | None, their_group: int | None) -> list[str]:
    """Why the images of two runs are not the same, whatever was measured on them."""
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
    """What the numbers of a column are of, in words; those that are dimmed are not meant."""
    cell = column.cells[column.reference]
    assert cell is not None  # a reference has a number
    number = cell.number
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
    """The run that compares with the most others, of tested ones if two of those compare; of several the first."""
    there = [i for i, number in enumerate(numbers) if number is not None]

    def weight(i: int) -> tuple[bool, int]:
        alike = sum(not differences(numbers[i], numbers[j], groups[i], groups[j]) for j in there)  # type: ignore[arg-type]
        return numbers[i].split == "test" and alike > 1, alike  # type: ignore[union-attr]

    return max(there, key=weight)  # `max` keeps the first


def _with_best(cells: Sequence[Cell | None], of: Metric) -> tuple[Cell | None, ...]:
    """The best marked, and all as good; none where fewer than two compare."""
    scores = {i: of.score(c.number.value) for i, c in enumerate(cells) if c and c.footnote is None and of.score}
    best = max(scores.values()) if len(scores) > 1 else None
    return tuple(
        Cell(cell.number, scores.get(i) == best, cell.footnote) if cell and best is not None else cell
        for i, cell in enumerate(cells)
    )


def plain(value: Any) -> str:
    """A value as one writes it; a SHA-256 shortened."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, str) and len(value) == 64 and all(c in "0123456789abcdef" for c in value):
        return value[:12]
    return f"{value:g}" if isinstance(value, float) else str(value)
