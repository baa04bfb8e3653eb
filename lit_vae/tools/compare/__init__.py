"""``lit-vae compare``: the same images and numbers of several runs, on one page."""

import csv
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from lit_vae.run.files import replacing
from lit_vae.tools.compare.run_table import table
from lit_vae.tools.runs import Checkpoint, Split, check_arguments

if TYPE_CHECKING:
    from lit_vae.tools.compare.study import Study

__all__ = ["compare", "table"]


def compare(
    runs: list[str],
    out: str = "comparison",
    split: Split = "test",
    num_images: int = 8,
    checkpoint: Checkpoint = "best",
    data_root: str | None = None,
    seed: int = 0,
    device: str | None = None,
    wandb: bool = False,
) -> None:
    """Put runs side by side on one page: the same images, all numbers, curves, what differs in their configurations.

    Writes OUT/index.html, which needs no network, and the same as pictures and metrics.csv. What a run does not have
    yet (a checkpoint, a test) is left out and said. Numbers of other images, or measured in another way, are marked as
    not comparable. RUN@gmm is a run whose samples are drawn from the mixture that lit-vae fit-prior fitted.

    Args:
        runs: Run directories or .ckpt files.
        out: Folder to write; its name is that of the comparison.
        split: Where the images are from, spread over it and its classes.
        num_images: Number of images; at most all.
        checkpoint: Which one of a run directory; the other one where there is none.
        data_root: Folder of the data of runs whose own is not where it was in training. Nothing is downloaded.
        seed: Of the samples.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        wandb: Also send it to Weights & Biases, as one group of runs (offline unless you are logged in).
    """
    from lit_vae.tools.compare.study import Request, study

    check_arguments("compare", {"num_images": (num_images, 1), "seed": (seed, 0)})
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"lit-vae compare: --out {out} is a file. Give a folder, which may be there or not.")
    request = Request(tuple(runs), split, num_images, checkpoint, data_root, seed, device)
    made = study(Path(os.path.abspath(folder)).name, request)
    write(made, folder)
    if wandb:
        from lit_vae.tools.compare.logged import log_to_wandb

        log_to_wandb(made, folder)


def write(made: "Study", folder: Path) -> None:
    """Write all files, whole or not at all; print where they are."""
    from lit_vae.tools.compare.charts import picture
    from lit_vae.tools.compare.page import page
    from lit_vae.tools.compare.sheets import png, reconstruction_sheet, sample_sheets, stack

    contents: dict[str, Callable[[], bytes]] = {"index.html": lambda: page(made).encode()}
    if made.has_reconstructions:
        sheets = [reconstruction_sheet(g, made.pictures, made.entries) for g in made.groups if g.errors]
        contents["reconstructions.png"] = lambda: png(stack(sheets))
    if made.has_samples:
        contents["samples.png"] = lambda: png(stack(sample_sheets(made.pictures, made.entries)))
    if made.scatters:
        contents["scatter.png"] = lambda: png(picture(made.scatters, made.entries))
    if made.curves:
        contents["curves.png"] = lambda: png(picture(made.curves, made.entries))
    with ExitStack() as files:
        partial = {name: files.enter_context(replacing(folder / name)) for name in (*contents, "metrics.csv")}
        _write_csv(made, partial["metrics.csv"])
        for name, content in contents.items():
            partial[name].write_bytes(content())
    for name in partial:
        print(folder / name)


def _write_csv(made: "Study", path: Path) -> None:
    """A row a number with all its digits, whether it compares with the others of its name, and what it is of."""
    rows = []
    for column in made.comparison.columns:
        for entry, cell in zip(made.entries, column.cells, strict=True):
            if cell is None:
                continue
            note = "" if cell.footnote is None else made.comparison.footnotes[cell.footnote]
            number = cell.number
            rows.append(
                {
                    "run": entry.label,
                    "directory": entry.records.directory,
                    "model": entry.records.model,
                    "metric": column.name,
                    "value": repr(number.value),
                    "split": number.split,
                    "comparable": "no" if note else "yes",
                    "best": "yes" if cell.best else "",
                    "why_not": note,
                    **number.data,
                    **{f"protocol.{name}": value for name, value in number.protocol.items()},
                }
            )
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(names) or ["run"], restval="")
        writer.writeheader()
        writer.writerows(rows)
