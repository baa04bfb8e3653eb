"""Read configuration files as ``lightning fit`` does, without starting a run: the settings, or built components."""

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
    """The parser of ``lightning`` alone: it builds and writes nothing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Keep the configuration as a run would write it, and leave the random generators alone."""
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
    """Builds model, data module and callbacks, but no trainer and no loggers."""

    def before_instantiate_classes(self) -> None:
        """Leave the loggers out."""
        self.settings.trainer.logger = False

    def instantiate_classes(self) -> None:
        """Build the components; see `instantiate_trainer` for what is left out."""
        LitCLI.instantiate_classes(self)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Keep the callbacks only: a login node may not have the devices of the trainer."""
        self.callbacks: list[Callback] = list(self.config_init.trainer.callbacks or [])


@dataclass(frozen=True)
class Components:
    """What configuration files build: the model with random weights, the data module before it has read anything.

    `content` is the complete configuration, as in ``config.yaml`` of a run.
    """

    files: Sequence[Path]
    content: dict[str, Any]
    model: Model
    data: LightningDataModule
    callbacks: Sequence[Callback]


def complete_config(files: Sequence[Path], args: Sequence[str] = ()) -> dict[str, Any]:
    """The complete configuration of these files, as in ``config.yaml`` of a run; later files override earlier ones.

    Raises:
        ValueError: ``lightning fit`` refuses them; it has the message of ``lightning fit``.
    """
    return _read(ConfigReader, files, args).content


def config_of_run(file: Path) -> dict[str, Any]:
    """The same for ``config.yaml`` of a run, which may come from somebody else: it imports trusted classes only.

    Raises:
        ValueError: ``lightning fit`` refuses the file, or it names a class that is not trusted.
    """
    with only_trusted(file):
        return complete_config([file])


def takes_root(data: LightningDataModule) -> bool:
    """Whether a data module reads a folder that its argument ``root`` names."""
    return "root" in inspect.signature(type(data).__init__).parameters


def build_components(files: Sequence[Path], arguments: Sequence[str] = ()) -> Components:
    """Build what a run of these files, with these arguments of the command line, would build.

    Raises:
        ValueError: ``lightning fit`` refuses them; it has the message of ``lightning fit``.
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
