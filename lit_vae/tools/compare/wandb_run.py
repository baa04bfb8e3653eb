"""A comparison in Weights & Biases: one run beside those of the trainings, which the next call updates.

Everything that it shows is kept in the folder of the page, so that ``lit-vae sync`` can upload a copy of the folder.
"""

import csv
import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lit_vae.run.files import replacing, write_json
from lit_vae.run.forms import fitting
from lit_vae.run.wandb_panels import PANELS_FILE
from lit_vae.run.wandb_settings import ID_FILE, SETTINGS_FILE, wandb_mode, wandb_project
from lit_vae.run.yaml_files import read_yaml
from lit_vae.tools.compare.charts import Chart
from lit_vae.tools.compare.differences import Cell, ComparedNumbers
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.numbers import format_number, with_error
from lit_vae.tools.compare.pictures import Group, psnr
from lit_vae.tools.compare.sheets import coloured, png, to_picture

if TYPE_CHECKING:
    from torch import Tensor

    from lit_vae.tools.compare.verb import Comparison

IMAGES = Path("wandb") / "images"


def log_to_wandb(comparison: "Comparison", folder: Path) -> None:
    """Log the page, its pictures and charts, a table of images and tables of numbers.

    Raises:
        ValueError: W&B fails.
    """
    from lit_vae.run.wandb_reopened import Reopened

    if wandb_mode() == "disabled":
        print("W&B is disabled (WANDB_MODE=disabled): nothing is logged.")
        return
    settings = _settings(comparison, folder)
    _keep(comparison, settings, folder)
    print(f"W&B: project {settings['project']}, group {settings['group']}, run {settings['name']}")
    try:
        Reopened(folder).send_all()
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"lit-vae compare: --wandb true: {error}. The page is written, in {folder}. Upload it later with: lit-vae"
            f" sync {folder}"
        ) from error


def _settings(comparison: "Comparison", folder: Path) -> dict[str, Any]:
    """Where its run goes: to those of the trainings, if they are together."""
    from lit_vae.run.wandb_reopened import WandbSettings

    files = [entry.records.directory / SETTINGS_FILE for entry in comparison.entries]
    theirs = [fitting(read_yaml(file), WandbSettings, file) if file.is_file() else {} for file in files]

    def common(name: str) -> str | None:
        values = {settings.get(name) for settings in theirs}
        return values.pop() if len(values) == 1 else None

    runs = {entry.label: {"model": entry.records.model, "id": _id_of(entry)} for entry in comparison.entries}
    request = {name: getattr(comparison.request, name) for name in ("split", "num_images", "checkpoint", "seed")}
    return {
        "project": common("project") or wandb_project(),
        "entity": common("entity"),
        "group": common("group") or comparison.name,
        "name": "/".join(folder.absolute().parts[-2:]),
        "tags": ["comparison"],
        "job_type": "compare",
        "config": {**request, "runs": runs},
    }


def _id_of(entry: Entry) -> str:
    """The id of its W&B run; of a training without W&B, its directory."""
    file = entry.records.directory / ID_FILE
    return file.read_text().strip() if file.is_file() else str(entry.records.directory.absolute())


def _keep(comparison: "Comparison", settings: dict[str, Any], folder: Path) -> None:
    (folder / "wandb").mkdir(exist_ok=True)
    if not (folder / ID_FILE).exists():
        study = [comparison.name, *sorted(_id_of(entry) for entry in comparison.entries)]
        (folder / ID_FILE).write_text(hashlib.sha256("\n".join(study).encode()).hexdigest()[:8] + "\n")
    with replacing(folder / SETTINGS_FILE) as partial:
        partial.write_text(yaml.safe_dump(settings, sort_keys=False))
    for old in (folder / IMAGES, folder / "wandb" / "artifacts", *(folder / "wandb").glob("offline-run-*")):
        shutil.rmtree(old, ignore_errors=True)
    (folder / IMAGES).mkdir()
    labels = [entry.label for entry in comparison.entries]
    images = [_image_table(comparison, group, n, folder) for n, group in enumerate(comparison.groups) if group.errors]
    kept = {
        "sha256_of_page": hashlib.sha256((folder / "index.html").read_bytes()).hexdigest(),
        "tables": {
            **{f"compare/images{f'_{n + 1}' if n else ''}": table for n, table in enumerate(images)},
            "compare/numbers": _number_table(comparison.numbers, labels),
            "compare/metrics": _csv_table(folder / "metrics.csv"),
        },
        "charts": {_key(chart): _points(chart, labels) for chart in comparison.scatters},
        "pictures": {f"compare/{file.stem}": file.name for file in sorted(folder.glob("*.png"))},
        "pages": {"compare/page": "index.html"},
    }
    write_json(folder / PANELS_FILE, kept)


def _image_table(comparison: "Comparison", group: Group, number: int, folder: Path) -> dict[str, Any]:
    """Images in rows; in columns the original, then of each run the reconstruction, the error and the PSNR."""
    shown = list(group.errors)
    labels = [comparison.entries[i].label for i in shown]
    x_hats = [x_hat for i in shown if (x_hat := comparison.pictures[i].x_hat) is not None]
    decibels = [psnr(group.x, x_hat) for x_hat in x_hats]

    def keep(name: str, image: "Tensor") -> dict[str, str]:
        path = IMAGES / f"{number + 1}_{name}.png"
        (folder / path).write_bytes(png(to_picture(image)))
        return {"image": str(path)}

    rows = [
        [
            n + 1,
            keep(f"{n + 1}_original", x),
            *(keep(f"{n + 1}_{i}", x_hat[n]) for i, x_hat in zip(shown, x_hats, strict=True)),
            *(keep(f"{n + 1}_{i}_error", coloured(group.errors[i][n], group.most_error)) for i in shown),
            *(of_run[n] for of_run in decibels),
        ]
        for n, x in enumerate(group.x)
    ]
    errors, psnrs = [f"{label}: error" for label in labels], [f"{label}: PSNR (dB)" for label in labels]
    return {"columns": ["image", "original", *labels, *errors, *psnrs], "rows": rows}


def _number_table(numbers: ComparedNumbers, labels: Sequence[str]) -> dict[str, Any]:
    """Metrics in rows and runs in columns, to read; `_csv_table` has all digits."""
    rows = [
        [column.name, column.metric.direction, *(_words(column.name, cell, numbers) for cell in column.cells)]
        for column in numbers.columns
    ]
    return {"columns": ["metric", "direction", *labels], "rows": rows}


def _words(name: str, cell: Cell | None, numbers: ComparedNumbers) -> str:
    if cell is None:
        return ""
    said = cell.number.words or format_number(name, cell.number.value)
    if half := cell.number.half_width:
        said = " ± ".join(with_error(cell.number.value, half))
    why_not = "" if cell.footnote is None else f" (does not compare: {numbers.footnotes[cell.footnote]})"
    return f"{said}{' (best)' if cell.best else ''}{why_not}"


def _csv_table(path: Path) -> dict[str, Any]:
    """``metrics.csv`` as it is, a row for each number."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else ["run"]
    return {"columns": columns, "rows": [[float(v) if k == "value" else v for k, v in row.items()] for row in rows]}


def _key(chart: Chart) -> str:
    words = re.findall(r"\w+", f"{chart.title} {chart.y.partition(' ')[0]}")
    return f"compare/{'_'.join(words).lower()}"


def _points(chart: Chart, labels: Sequence[str]) -> dict[str, Any]:
    rows = [[*points[-1], labels[i]] for i, points in chart.points.items()]
    return {"title": chart.title, "x": chart.x, "y": chart.y, "rows": rows}
