"""What several verbs write: pictures, numbers, Markdown and a progress bar."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lit_vae.run.files import replacing

if TYPE_CHECKING:
    from PIL import Image

    from lit_vae.tools.runs import Run


def save_picture(image: "Image.Image", path: Path, caption: str) -> None:
    """Write a PNG, whole or not at all, with its caption in the metadata; print where it is."""
    from PIL.PngImagePlugin import PngInfo

    metadata = PngInfo()
    metadata.add_itxt("Description", caption)
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=metadata)
    print(path)


def picture_path(run: "Run", out: str | None, name: str) -> Path:
    """``out``, or ``RUN/sheets/<name>.png``. Verbs check it before they compute anything.

    Raises:
        ValueError: ``out`` does not end in .png, or is a folder.
    """
    path = run.directory / "sheets" / f"{name}.png" if out is None else Path(out)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--out {out}: a picture is written as a PNG. Give a file name that ends in .png.")
    return path


def print_numbers(title: str, columns: Mapping[str, Mapping[str, float | None]], of: str = "metric") -> None:
    """Print columns of the same numbers, by heading; ``of`` is what a row is of."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(title, markup=False, highlight=False)  # a table would wrap it at its own width
    shown = Table()
    shown.add_column(of, no_wrap=True)  # headings of many columns wrap instead
    for heading in columns:
        shown.add_column(heading, justify="right")
    for name in next(iter(columns.values())):
        shown.add_row(name, *(four_decimals(numbers[name]) for numbers in columns.values()))
    console.print(shown)


def four_decimals(value: float | None) -> str:
    """The number as tables show it; blank if there is none."""
    return "" if value is None else f"{value:.4f}"


def markdown_escape(text: str) -> str:
    """Text on one line that Markdown shows as it is: a run or a number may have any name."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"([\\`*{}<>|~$&#]|\](?=[(:\[])|(?<!\w)_|_(?!\w))", r"\\\1", printable)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function ``report(done, total)`` that draws a bar on a terminal, and nothing if stderr is a file."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
