"""``lit-vae compare``, from run directories to one page.

`compare_runs` reads the runs (gather.py), lets their models reconstruct the same images and draw samples (pictures.py),
finds which numbers compare (differences.py) and chooses charts (charts.py). `write` turns that into files: the page
(page.py and templates/), pictures (sheets.py) and a table.
"""

import csv
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import replacing
from lit_vae.tools.runs import Checkpoint, Split, check_arguments, choose_device

if TYPE_CHECKING:
    from lit_vae.tools.compare.charts import Chart
    from lit_vae.tools.compare.differences import ComparedNumbers
    from lit_vae.tools.compare.gather import Entry
    from lit_vae.tools.compare.pictures import Group, Pictures
    from lit_vae.tools.compare.seeds import OverSeeds


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
    sort_by: str | None = None,
) -> None:
    """Put runs side by side on one page: the same images, all numbers, curves, and how the configurations differ.

    Writes OUT/index.html, which needs no network, and its content as PNG files and metrics.csv. The page says what a
    run lacks, such as a checkpoint or a test. It marks numbers that do not compare: other images, or measured in
    another way. RUN@gmm is a run whose samples are drawn from the prior that lit-vae fit-prior fitted;
    so are RUN@flow, RUN@vamp and RUN@vae.
    RUN@drawn is a run whose images are draws from p(x|z) instead of its means; callbacks.DrawnReconstructions measures
    them. Of runs that differ in their seed alone the first is shown, and of all of them the mean.

    Args:
        runs: Run directories or .ckpt files.
        out: Folder to write; its name is the title of the page.
        split: Split of the images, which are spread over its classes.
        num_images: Number of images; at most all.
        checkpoint: Which checkpoint of a run directory; the other one if it is missing.
        data_root: Folder of the data, for runs whose own folder has moved since training. Nothing is downloaded.
        seed: Seed of the samples.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        wandb: Also log it to Weights & Biases, as one run in the group of the trainings (offline unless logged in).
        sort_by: Metric whose best run comes first, such as psnr. A pattern takes the best number that fits: nll* is nll
            of a PixelCNN and nll_iw128 of a VAE. Default: the order in which the runs are given.
    """
    check_arguments("compare", {"num_images": (num_images, 1), "seed": (seed, 0)})
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"lit-vae compare: --out {out} is a file. Give a folder; it need not exist.")
    request = Request(tuple(runs), split, num_images, checkpoint, data_root, seed, device, sort_by)
    comparison = compare_runs(Path(os.path.abspath(folder)).name, request)
    write(comparison, folder)
    if wandb:
        from lit_vae.tools.compare.wandb_run import log_to_wandb

        log_to_wandb(comparison, folder)


@dataclass(frozen=True)
class Request:
    """What the user asked for: the arguments of `compare`."""

    runs: tuple[str, ...]
    split: Split
    num_images: int
    checkpoint: Checkpoint
    data_root: str | None
    seed: int
    device: str | None
    sort_by: str | None = None


@dataclass(frozen=True)
class Comparison:
    """All that the page shows.

    `configs` has the keys whose values differ, with the value of each run. `over_seeds` is empty if each configuration
    was trained with one seed. The charts are of one number over another (`scatters`), of the detail in reconstructions
    over the spatial frequency (`spectra`), and of validation numbers over steps (`curves`).
    """

    name: str
    request: Request
    entries: Sequence["Entry"]
    pictures: Sequence["Pictures"]
    groups: Sequence["Group"]
    numbers: "ComparedNumbers"
    scatters: Sequence["Chart"]
    spectra: Sequence["Chart"]
    curves: Sequence["Chart"]
    configs: dict[str, list[str]]
    over_seeds: Sequence["OverSeeds"]


def compare_runs(name: str, request: Request) -> Comparison:
    """Read the runs, reconstruct images, draw samples, and find what compares.

    Raises:
        ValueError: a path is no run, its data is missing, or its model has nothing to compare.
    """
    from lit_vae.tools.compare.charts import curves, scatters, spectra
    from lit_vae.tools.compare.differences import compare_numbers, config_differences
    from lit_vae.tools.compare.gather import best_first, gather
    from lit_vae.tools.compare.pictures import group_by_images, groups_of, make_pictures
    from lit_vae.tools.compare.seeds import by_seed, over_seeds

    device = choose_device(request.device)
    found = gather(request.runs, request.checkpoint)
    groups_by_seed = by_seed(found if request.sort_by is None else best_first(found, request.sort_by))
    seeds_alone = len(groups_by_seed) == 1
    entries = groups_by_seed[0] if seeds_alone else [group[0] for group in groups_by_seed]
    pictures = [make_pictures(entry, request, device) for entry in entries]
    groups = group_by_images(pictures)
    group_of_run = groups_of(groups, len(entries))
    numbers = compare_numbers(entries, group_of_run)
    configs = config_differences([entry.records.config for entry in entries])
    charts = scatters(numbers), spectra(groups, pictures), curves(entries, group_of_run)
    return Comparison(name, request, entries, pictures, groups, numbers, *charts, configs, over_seeds(groups_by_seed))


def write(comparison: Comparison, folder: Path) -> None:
    """Write all files, or none if one fails; print their paths."""
    from lit_vae.tools.compare.charts import draw_charts
    from lit_vae.tools.compare.page import page
    from lit_vae.tools.compare.sheets import png, reconstruction_sheet, sample_sheets, stack

    contents: dict[str, Callable[[], bytes]] = {"index.html": lambda: page(comparison).encode()}
    pictures, entries = comparison.pictures, comparison.entries
    if sheets := [reconstruction_sheet(group, pictures, entries) for group in comparison.groups if group.errors]:
        contents["reconstructions.png"] = lambda: png(stack(sheets))
    if samples := sample_sheets(pictures, entries):
        contents["samples.png"] = lambda: png(stack(samples))
    charts = {"scatter": comparison.scatters, "spectra": comparison.spectra, "curves": comparison.curves}
    for name, some in charts.items():
        if some:
            contents[f"{name}.png"] = partial(lambda some: png(draw_charts(some, entries)), some)
    tables = {"metrics.csv": _numbers_in_rows(comparison)}
    if comparison.over_seeds:
        tables["seeds.csv"] = _seeds_in_rows(comparison.over_seeds)
    with ExitStack() as files:
        written = {name: files.enter_context(replacing(folder / name)) for name in (*contents, *tables)}
        for name, rows in tables.items():
            _write_csv(rows, written[name])
        for name, content in contents.items():
            written[name].write_bytes(content())
    for name in written:
        print(folder / name)


def _numbers_in_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each number: all digits, whether it compares with the others of its name, its images and protocol."""
    rows = []
    for column in comparison.numbers.columns:
        for entry, cell in zip(comparison.entries, column.cells, strict=True):
            if cell is None:
                continue
            note = "" if cell.footnote is None else comparison.numbers.footnotes[cell.footnote]
            number = cell.number
            rows.append(
                {
                    "run": entry.label,
                    "directory": entry.records.directory,
                    "model": entry.records.model,
                    "metric": column.name,
                    "value": repr(number.value),
                    "half_width_95": "" if number.half_width is None else repr(number.half_width),
                    "split": number.split,
                    "comparable": "no" if note else "yes",
                    "best": "yes" if cell.best else "",
                    "why_not": note,
                    **number.data,
                    **{f"protocol.{name}": value for name, value in number.protocol.items()},
                }
            )
    return rows


def _seeds_in_rows(of: Sequence["OverSeeds"]) -> list[dict[str, Any]]:
    """A row for each mean over seeds, with its difference to the first configuration."""
    rows = []
    for row in of:
        for name, mean in row.means.items():
            difference = map(repr, row.against_first.get(name, ()))
            rows.append(
                {
                    "run": row.label,
                    "trainings": 1 + len(row.others),
                    "metric": name,
                    "mean": repr(mean.value),
                    "half_width_95": repr(mean.half_width),
                    **dict(zip(("against_first", "against_first_half_width_95"), difference, strict=False)),
                }
            )
    return rows


def _write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(names) or ["run"], restval="")
        writer.writeheader()
        writer.writerows(rows)
