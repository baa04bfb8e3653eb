"""Tables, charts and pictures that a folder keeps for its W&B run, in files that need nothing of W&B."""

from pathlib import Path
from typing import Any

from lit_vae.run.files import read_json

PANELS_FILE = Path("wandb") / "panels.json"
"""Sections ``tables``, ``charts``, ``pictures`` and ``pages``, each by key. Paths are relative to the folder."""


def panels_of(folder: Path) -> dict[str, Any]:
    """What a folder keeps, by key, as W&B takes it. A cell ``{"image": path}`` of a table is a picture."""
    import wandb

    def cell(value: Any) -> Any:
        return wandb.Image(str(folder / value["image"])) if isinstance(value, dict) else value

    def table(columns: list[str | int], rows: list[list[Any]]) -> wandb.Table:
        return wandb.Table(columns=columns, data=[[cell(value) for value in row] for row in rows])

    def chart(title: str, x: str, y: str, rows: list[list[Any]]) -> Any:
        return wandb.plot.scatter(table([x, y, "run"], rows), x, y, title)

    kept = read_json(folder / PANELS_FILE)
    return {
        **{key: table(**one) for key, one in kept["tables"].items()},
        **{key: chart(**one) for key, one in kept["charts"].items()},
        **{key: wandb.Image(str(folder / path)) for key, path in kept["pictures"].items()},
        **{key: wandb.Html(str(folder / path), inject=False) for key, path in kept["pages"].items()},
    }
