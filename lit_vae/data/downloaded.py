"""The base of data modules whose files can be downloaded."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_vae.data.base import ImageDataModule
from lit_vae.data.fetch import fetch
from lit_vae.run.needs import Measured, Need, of_contents
from lit_vae.run.staging import staged


class DownloadedDataModule(ImageDataModule):
    """A data set in a folder ``root`` that can be downloaded into it.

    A concrete class tells whether the files are complete, and downloads them.
    """

    def __init__(self, *, root: str, download: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = staged(root)
        self.download = download

    @property
    def title(self) -> str:
        """A name for messages, which differs between modules that need different files of one ``root``."""
        return self._component

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do by hand if files are missing."""

    def complete(self) -> bool:
        """Tell whether all files are there."""
        return all(path.is_file() for path in self.files())

    @abstractmethod
    def fetch_into(self, folder: Path) -> None:
        """Download the data set and verify it."""

    @abstractmethod
    def files(self) -> list[Path]:
        """All files of a complete data set."""

    def damage(self) -> str | None:
        """What is wrong with the files, with the remedy, or None. By default the error of reading them all."""
        try:
            self.setup()
        except ValueError as error:
            return str(error)
        return None

    def measure(self) -> Measured:
        """Size and checksum of the data set."""
        return of_contents(self.files())

    def needs(self) -> Iterable[Need]:
        """The data set."""
        return [DataSet(self)]

    def prepare_data(self) -> None:
        """Download the data set if it is missing.

        Raises:
            FileNotFoundError: it cannot or must not be downloaded.
        """
        if not self.download and not self.complete():
            raise FileNotFoundError(
                f"{self._component}: root (={str(self.root)!r}) does not contain the data set, and download (=False)"
                f" forbids downloads. {self.remedy} Or set data.init_args.download to true."
            )
        fetch(self.root, self._component, self.complete, self.fetch_into, self.remedy)

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs, once.

        Raises:
            FileNotFoundError: ``prepare_data`` was not called.
            ValueError: the files are damaged.
        """
        if not self.complete():
            raise FileNotFoundError(
                f"{self._component}: root (={str(self.root)!r}) does not contain the data set. {self.remedy}"
            )
        super().setup(stage)


class DataSet(Need):
    """The files of a data module, downloaded by the module itself."""

    provides = "fetched"

    def __init__(self, data: DownloadedDataModule) -> None:
        self.data, self.what = data, data.title

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.data.root

    def problem(self) -> str | None:
        """See `Need`. Files are compared with published checksums, if there are any."""
        if not self.data.complete():
            return f"root (={str(self.where)!r}) does not contain the data set. {self.data.remedy}"
        return self.data.damage()

    def is_damaged(self) -> bool:
        """See `Need`."""
        return self.data.complete()

    def measure(self) -> Measured:
        """See `Need`."""
        return self.data.measure()

    def provide(self) -> None:
        """See `Need`. Damaged files are not overwritten: they may be the user's own."""
        if not self.data.complete():
            self.data.prepare_data()
