"""The table of all numbers: sortable, the best of those that compare marked, and below it what they are of."""

from itertools import groupby
from string import ascii_lowercase

from lit_vae.tools.compare.comparable import Cell, Column, protocol_words
from lit_vae.tools.compare.markup import Html, element, join
from lit_vae.tools.compare.numbers import format_number
from lit_vae.tools.compare.page_images import run_name
from lit_vae.tools.compare.study import Study

_ARROWS = {"higher is better": "↑", "lower is better": "↓", "best at 1": "→ 1", "": ""}


def numbers(study: Study) -> Html:
    """The table, its footnotes and the protocol."""
    columns = study.comparison.columns
    if not columns:
        return element("p", "No run has any numbers yet.")
    rows = [_row(study, i) for i in range(len(study.entries))]
    table = element("table", _head(columns), element("tbody", *rows), class_="numbers", id="numbers-table")
    region = element("div", table, class_="scroll", tabindex=0, role="region", aria_label="All numbers")
    return join([region, _notes(study), _protocols(columns)])


def _head(columns: tuple[Column, ...]) -> Html:
    groups = [(name, len(list(members))) for name, members in groupby(columns, key=lambda column: column.metric.group)]
    over = [element("th", name, colspan=count, scope="colgroup") for name, count in groups]
    heads = [_sortable("run", "", "ascending", "")]
    for column, starts in zip(columns, _starts(columns), strict=True):
        first = "descending" if column.metric.direction == "higher is better" else "ascending"
        heads.append(_sortable(column.name, column.metric.direction, first, "starts" if starts else ""))
    return element("thead", element("tr", element("td"), *over, class_="groups"), element("tr", *heads))


def _starts(columns: tuple[Column, ...]) -> list[bool]:
    """Whether a column is the first of its group."""
    groups = [column.metric.group for column in columns]
    return [i == 0 or group != groups[i - 1] for i, group in enumerate(groups)]


def _sortable(name: str, direction: str, first: str, class_: str) -> Html:
    arrow = element("span", _ARROWS[direction], class_="direction", title=direction) if direction else None
    hidden = element("span", f", {direction}", class_="hidden") if direction else None
    button = element("button", name.replace("_bytes", ""), arrow, hidden, type="button", data_first=first)
    return element("th", button, scope="col", aria_sort="none", class_=class_ or None)


def _row(study: Study, i: int) -> Html:
    cells = [
        _cell(column.name, column.cells[i], starts)
        for column, starts in zip(study.comparison.columns, _starts(study.comparison.columns), strict=True)
    ]
    label = study.entries[i].label
    return element("tr", element("th", run_name(study, i), scope="row", data_value=label), *cells)


def _cell(name: str, cell: Cell | None, starts: bool) -> Html:
    if cell is None:
        return element("td", class_="starts" if starts else None)
    number = cell.number
    text: Html | str = number.words or format_number(name, number.value)
    classes = [name for name, holds in (("starts", starts), ("dim", cell.footnote is not None)) if holds]
    marks = []
    if cell.best:
        text = element("b", text)
        marks.append(element("span", "★", class_="best", title="the best of those that compare", role="img",
                             aria_label="best"))  # fmt: skip
    if number.split == "val":
        marks.append(element("span", "val", class_="val", title="of the validation images"))
    if cell.footnote is not None:
        letter = _letter(cell.footnote)
        marks.append(element("sup", element("a", letter, href=f"#note-{letter}")))
    return element("td", text, *marks, data_value=repr(number.value), class_=" ".join(classes) or None)


def _letter(index: int) -> str:
    return ascii_lowercase[index] if index < 26 else str(index + 1)


def _notes(study: Study) -> Html:
    legend = "★ the best of the numbers that compare; ↑ higher, ↓ lower, → 1 nearest to one is better."
    if any(number.split == "val" for entry in study.entries for number in entry.numbers.values()):
        legend += " val: of the validation images, from the last validation that was logged."
    if study.comparison.footnotes:
        legend += " Dimmed numbers do not compare with the others of their column, and no mark is given to them."
    notes = [
        element("li", element("b", f"{_letter(i)} "), text, id=f"note-{_letter(i)}")
        for i, text in enumerate(study.comparison.footnotes)
    ]
    return join([element("p", legend, class_="small"), element("ul", *notes, class_="notes small") if notes else None])


def _protocols(columns: tuple[Column, ...]) -> Html:
    """What each number is, and which images it was measured on, once for all numbers that share it."""
    by_words: dict[str, list[str]] = {}
    for column in columns:
        reference = column.cells[column.reference]
        if reference is not None and reference.number.split:
            by_words.setdefault(protocol_words(column), []).append(column.name)
    measured = [
        element("div", element("dt", ", ".join(names)), element("dd", words)) for words, names in by_words.items()
    ]
    meanings: dict[str, list[str]] = {}
    for column in columns:
        if column.metric.words:
            meanings.setdefault(column.metric.words, []).append(column.name)
    glossary = [
        element("div", element("dt", ", ".join(names)), element("dd", what)) for what, names in meanings.items()
    ]
    return join(
        [
            element("h3", "Protocol"),
            element("dl", *measured, class_="terms"),
            element("details", element("summary", "What the numbers are"), element("dl", *glossary, class_="terms")),
        ]
    )
