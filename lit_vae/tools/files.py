"""The pictures that the tools write."""

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
        image.save(partial, format="PNG", optimize=True, pnginfo=metadata)
    print(path)


def picture_path(run: "Run", out: str | None, name: str) -> Path:
    """``out``, or ``RUN/sheets/<name>.png``; asked for before anything is computed.

    Raises:
        ValueError: the name is not that of a PNG file.
    """
    path = run.directory / "sheets" / f"{name}.png" if out is None else Path(out)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--out {out}: a picture is written as a PNG. Give a file name that ends in .png.")
    return path
