"""Writes pictures: a PNG file in the run directory, and to loggers that take images."""

import json
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lit_vae.run.files import replacing

MEDIA = "media"
PARTS = "Parts"
"""Key of a picture's ``info``: boxes ``(left, upper, right, lower)`` that W&B also shows one by one."""


def pictures_by_step(run_dir: Path) -> dict[int, list[tuple[str, Path, int]]]:
    """The pictures of a run, by their step in ``metrics.csv``: name, file, optimizer steps taken."""
    found: dict[int, list[tuple[str, Path, int]]] = {}
    for path in sorted((run_dir / MEDIA).glob("*/step_*.png")):
        taken = int(path.stem.removeprefix("step_"))
        found.setdefault(max(taken - 1, 0), []).append((f"{MEDIA}/{path.parent.name}", path, taken))
    return found


def caption_of(picture: Path) -> str:
    """The caption that `log_panel` wrote into a picture."""
    with Image.open(picture) as image:
        return str(image.info.get("Description", ""))


def parts_of(picture: str | Path) -> list[Image.Image]:
    """The `PARTS` of a picture."""
    with Image.open(picture) as image:
        return [image.crop(box) for box in json.loads(image.info.get(PARTS, "[]"))]


def key_of_parts(panel: str) -> str:
    """``media/reconstructions`` -> ``images/reconstructions``."""
    return panel.replace(MEDIA, "images", 1)


def log_panel(trainer: Trainer, name: str, image: Image.Image, caption: str = "", step: int | None = None) -> None:
    """Write ``<run_dir>/media/<name>/step_<n>.png`` and send it to W&B and TensorBoard as ``media/<name>``.

    W&B also gets the `PARTS` of the picture, one by one, as ``images/<name>``. The step n is by default
    ``trainer.global_step``, which is 0 outside of training.

    Only rank 0 writes; other ranks need not call it, and a ``fast_dev_run`` writes nothing. The file is written
    completely or not at all, with the caption in its metadata.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    step = trainer.global_step if step is None else step
    path = Path(trainer.default_root_dir) / MEDIA / name / f"step_{step}.png"
    metadata = PngInfo()
    if caption:
        metadata.add_itxt("Description", caption)
    if parts := image.info.get(PARTS):
        metadata.add_text(PARTS, json.dumps(parts))
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=metadata)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            captions = {"caption": [caption]} if caption else {}
            # the file itself: an upload then sends the same bytes under the same name
            logger.log_image(f"{MEDIA}/{name}", [str(path)], step=step, **captions)
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np

            layout = "HW" if image.mode == "L" else "HWC"
            logger.experiment.add_image(f"{MEDIA}/{name}", np.asarray(image), step, dataformats=layout)
