"""``lit-vae table``: one table of the test numbers of several runs."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_vae.run.files import TEST_METRICS_FILE, replacing
from lit_vae.tools.compare.differences import protocol_differences
from lit_vae.tools.output import four_decimals, markdown_escape
from lit_vae.tools.records import PRIOR_KINDS, prior_file, read_records

PROTOCOL = ("data", "image_shape", "values")
NOT_COMPARABLE = "*"
"""Mark of a run with other images than the first run, and of a number that was measured in another way."""


@dataclass(frozen=True)
class Row:
    """One run. `protocol` is of the images that all numbers are of, `protocols` says how each number was measured."""

    name: str
    model: str
    protocol: dict[str, Any]
    metrics: dict[str, float | None]
    protocols: dict[str, dict[str, Any]]
    note: str = ""


def table(runs: list[str], out: str | None = None) -> None:
    """Put the test numbers of runs into one table: a row for each run.

    The numbers come from RUN/test_metrics.json (lightning test), RUN/priors/*.json (lit-vae fit-prior) and
    RUN/evaluation.json (lit-vae evaluate). A missing number is blank. A * marks what does not compare with the first
    run: runs on other images (data, shape or values), and numbers that were measured in another way.

    Args:
        runs: Run directories.
        out: Also write the table to this file, as Markdown (.md) or CSV (.csv).
    """
    if out is not None and (Path(out).suffix not in (".md", ".csv") or Path(out).is_dir()):
        raise ValueError(f"--out {out}: a table is written as Markdown or CSV. Give a file name in .md or .csv.")
    rows = _read_all(runs)
    names = list(dict.fromkeys(name for row in rows for name in sorted(row.metrics)))
    first = rows[0]
    others = [row.protocol != first.protocol for row in rows]
    notes = [
        f"{NOT_COMPARABLE} {row.name} is not comparable: {_of(row.protocol)}, where {first.name} is"
        f" {_of(first.protocol)}."
        for row, other in zip(rows, others, strict=True)
        if other
    ]
    marked = _measured_otherwise(rows, names, others)
    notes += [f"{NOT_COMPARABLE} {note}" for note in dict.fromkeys(marked.values())]
    notes += [row.note for row in rows if row.note]
    header = ["run", "model", *names]
    labels = [f"{row.name} {NOT_COMPARABLE}" if other else row.name for row, other in zip(rows, others, strict=True)]
    cells = [
        [label, row.model, *(_number(row.metrics.get(name), (row.name, name) in marked) for name in names)]
        for label, row in zip(labels, rows, strict=True)
    ]
    _print(header, cells, notes)
    if out is None:
        return
    path = Path(out)
    with replacing(path) as partial:
        if path.suffix == ".md":
            partial.write_text(_markdown(header, cells, notes))
        else:
            _write_csv(partial, names, rows, others)
    print(path)


def _read_all(runs: list[str]) -> list[Row]:
    """Raises one ValueError that names every run without numbers."""
    files = [Path(TEST_METRICS_FILE), *map(prior_file, PRIOR_KINDS)]
    missing = [run for run in runs if not any((Path(run) / file).is_file() for file in files)]
    if missing:
        raise ValueError(
            "\n".join(
                f"{run}: there is no run directory of that name."
                if not Path(run).is_dir()
                else f"{run}: there is no {TEST_METRICS_FILE}. Make it with:"
                f" lightning test --config {Path(run) / 'config.yaml'} --ckpt_path best"
                for run in missing
            )
        )
    return [_read(run) for run in runs]


def _read(run: str) -> Row:
    records = read_records(Path(run))
    test = records.test
    tested = Path(test.get("checkpoint", "")).name
    note = "".join(
        f"{run}: the numbers of {prior_file(kind)} are of {prior.get('checkpoint')}, the others of {tested}."
        for kind, prior in records.priors.items()
        if test and tested != prior.get("checkpoint")
    )
    protocol = {name: (test or records.prior()).get(name) for name in PROTOCOL}
    metrics: dict[str, float | None] = {}
    protocols: dict[str, Any] = {}
    for prior in records.priors.values():
        metrics |= prior.get("metrics", {})
        protocols |= {name: prior.get("samples", {}) for name in prior.get("metrics", {})}
    for drawn_from, suffix in (("model", ""), *((kind, f"_{kind}") for kind in PRIOR_KINDS)):
        evaluation = records.evaluation.get(drawn_from) or {}
        metrics |= {f"{name}{suffix}": value for name, value in evaluation.get("metrics", {}).items()}
        protocols |= {f"{name}{suffix}": of for name, of in evaluation.get("protocols", {}).items()}
    metrics |= test.get("metrics", {})
    protocols |= test.get("protocols", {})
    return Row(run.rstrip("/"), records.model, protocol, metrics, protocols, note)


def _measured_otherwise(rows: list[Row], names: list[str], others: list[bool]) -> dict[tuple[str, str], str]:
    """By run and number, why it does not compare with the same number of the first run that has it."""
    found = {}
    for name in names:
        with_it = [row for row, other in zip(rows, others, strict=True) if not other and name in row.metrics]
        for row in with_it[1:]:
            first = with_it[0]
            differing = protocol_differences(row.protocols.get(name, {}), first.protocols.get(name, {}))
            if differing:
                what = f"{name} of {row.name} does not compare with that of {first.name}"
                found[row.name, name] = f"{what}: {'; '.join(differing)}."
    return found


def _of(protocol: dict[str, Any]) -> str:
    return f"{protocol['data']} {protocol['image_shape']} {protocol['values']}"


def _number(value: float | None, marked: bool = False) -> str:
    return four_decimals(value) + (f" {NOT_COMPARABLE}" if marked and value is not None else "")


def _print(header: list[str], cells: list[list[str]], notes: list[str]) -> None:
    """Print a row for each run if they fit the screen, else a column for each run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    lines = [header, *cells]
    needed = sum(max(map(len, column)) + 3 for column in zip(*lines, strict=True)) + 1
    if needed > console.width:
        lines = [list(column) for column in zip(*lines, strict=True)]
    shown = Table()
    for i, head in enumerate(lines[0]):
        shown.add_column(escape(head), justify="left" if i == 0 else "right", overflow="fold")
    for line in lines[1:]:
        shown.add_row(*map(escape, line))
    console.print(shown)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def _markdown(header: list[str], cells: list[list[str]], notes: list[str]) -> str:
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    head, *body = ([markdown_escape(cell) for cell in line] for line in (header, *cells))
    lines = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
    return "\n".join([*lines, *(f"\n{markdown_escape(note)}" for note in notes)]) + "\n"


def _write_csv(path: Path, names: list[str], rows: list[Row], others: list[bool]) -> None:
    """All digits, with columns for the images and for whether the run compares with the first one."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "model", *PROTOCOL, "comparable", "note", *names])
        for row, other in zip(rows, others, strict=True):
            protocol = [str(row.protocol[name]) for name in PROTOCOL]
            numbers = [row.metrics.get(name, "") for name in names]
            writer.writerow([row.name, row.model, *protocol, "no" if other else "yes", row.note, *numbers])
