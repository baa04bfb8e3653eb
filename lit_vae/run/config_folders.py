"""Folders of configurations that share a base."""

from pathlib import Path

BASE = "base.yaml"
"""The file that each configuration beside it is laid over: what a comparison keeps equal."""
SECOND_STAGE = "second_stage.yaml"
"""The configuration of a prior that ``lit-vae study`` trains on the latents of each configuration beside it."""


def with_base(config: Path) -> tuple[Path, ...]:
    """A configuration after the ``base.yaml`` beside it, which comes after that of the folder above, and so on.

    A second stage has no base: it is another model.
    """
    bases: list[Path] = []
    for folder in config.parents if config.name != SECOND_STAGE else ():
        base = folder / BASE
        if not base.is_file():
            break
        if base != config:
            bases.insert(0, base)
    return (*bases, config)


def configurations_in(folder: Path) -> list[Path]:
    """The configurations of a folder, by name, without its base, its second stage, and those in its subfolders.

    Raises:
        ValueError: there are none.
    """
    found = [path for path in sorted(folder.glob("*.yaml")) if path.name not in (BASE, SECOND_STAGE)]
    if not found:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.yaml")))
        remedy = f"There are some in {', '.join(inside)}: give one of these." if inside else "Give another folder."
        raise ValueError(f"there is no configuration (*.yaml) in {folder}. {remedy}")
    return found
