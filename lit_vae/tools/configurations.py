"""Configuration files as ``lightning fit`` reads them, without a run: their settings, or the components they name."""

import contextlib
import inspect
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from lit_vae.cli import LitCLI, command_line, quieten_lightning
from lit_vae.models.module import Model
from lit_vae.run.trust import only_trusted


class ConfigReader(LitCLI):
    """Reads the arguments of a run and stops there: nothing is built or written."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keep the configuration as a run would write it; no random generator is touched."""
        super().parse_arguments(parser, args)
        self.content = self.written(self.config)
        self.settings.seed_everything = False

    def before_instantiate_classes(self) -> None:
        """Nothing."""

    def instantiate_classes(self) -> None:
        """Nothing."""

    def after_instantiate_classes(self) -> None:
        """Nothing: no model is there to have problems."""


class ComponentBuilder(ConfigReader):
    """Builds model, data module and callbacks, and stops there: there is no trainer, and loggers open no file."""

    def before_instantiate_classes(self) -> None:
        """Leave the loggers out."""
        self.settings.trainer.logger = False

    def instantiate_classes(self) -> None:
        """What a run builds, less what `instantiate_trainer` leaves out."""
        LitCLI.instantiate_classes(self)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """The callbacks alone: a login node may not have the devices."""
        self.callbacks: list[Callback] = list(self.config_init.trainer.callbacks or [])


@dataclass(frozen=True)
class Components:
    """What configuration files build.

    Args:
        files: each laid over those before it.
        content: what ``config.yaml`` of a run would hold.
        model: with random weights.
        data: nothing of it is read yet.
        callbacks: those of the configuration.
    """

    files: Sequence[Path]
    content: dict[str, Any]
    model: Model
    data: LightningDataModule
    callbacks: Sequence[Callback]


def configurations_in(folder: Path) -> list[Path]:
    """The configurations of a study, by name; those in its subfolders are not.

    Raises:
        ValueError: there are none.
    """
    found = sorted(folder.glob("*.yaml"))
    if not found:
        inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.yaml")))
        remedy = f"There are some in {', '.join(inside)}: give one of these." if inside else "Give another folder."
        raise ValueError(f"there is no configuration (*.yaml) in {folder}. {remedy}")
    return found


def complete_config(files: Sequence[Path], args: Sequence[str] = ()) -> dict[str, Any]:
    """What ``config.yaml`` of a run of these configuration files would hold, each laid over those before it.

    Args:
        files: configurations.
        args: of the command line, beside them.

    Raises:
        ValueError: ``lightning fit`` would refuse them, with what it would say.
    """
    return _read(ConfigReader, files, args).content


def config_of_run(file: Path) -> dict[str, Any]:
    """The same of a run's ``config.yaml``, which somebody else may have made: only trusted classes are imported.

    Raises:
        ValueError: also if it names another class.
    """
    with only_trusted(file):
        return complete_config([file])


def takes_root(data: LightningDataModule) -> bool:
    """Whether a data module reads a folder that its argument ``root`` names."""
    return "root" in inspect.signature(type(data).__init__).parameters


def build_components(files: Sequence[Path], arguments: Sequence[str] = ()) -> Components:
    """What a run of these configuration files, with these arguments of the command line, would build.

    Raises:
        ValueError: ``lightning fit`` would refuse them, with what it would say.
    """
    built = _read(ComponentBuilder, files, arguments)
    return Components(files, built.content, built.model, built.datamodule, built.callbacks)


def _read(kind: type[ConfigReader], files: Sequence[Path], args: Sequence[str] = ()) -> Any:
    said = io.StringIO()
    given, sys.argv = sys.argv, ["lightning", *(f"--config={file}" for file in files), *args]
    try:
        with contextlib.redirect_stderr(said):  # jsonargparse has parsers within parsers, and any of them may exit
            quieten_lightning()
            return command_line(kind, run=False)
    except SystemExit:
        raise ValueError(said.getvalue().strip().removeprefix("error: ")) from None
    finally:
        sys.argv = given
