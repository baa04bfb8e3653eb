"""What data modules share whose files can be fetched."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_vae.data.base import ImageDataModule
from lit_vae.data.files import fetch, missing
from lit_vae.run.needs import Measured, Need, of_contents
from lit_vae.run.staging import staged


class DownloadedDataModule(ImageDataModule):
    """A data set that lies in a folder, ``root``, and can be fetched into it.

    A concrete class says whether it is complete and how it is downloaded.
    """

    def __init__(self, *, root: str, download: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = staged(root)
        self.download = download

    @property
    def title(self) -> str:
        """What it is; modules that need other files of one ``root`` have another."""
        return self._component

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do by hand where the files are missing."""

    @abstractmethod
    def complete(self) -> bool:
        """Tell whether all files are there."""

    @abstractmethod
    def fetch_into(self, folder: Path) -> None:
        """Download the data set and verify it."""

    @abstractmethod
    def files(self) -> list[Path]:
        """All files of the data set, where it is complete."""

    def damage(self) -> str | None:
        """What is wrong with the files, and what mends it; by default what reading them all finds."""
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
        """Download the data set unless it is there.

        Raises:
            FileNotFoundError: it is not there, and cannot or may not be fetched.
        """
        if not self.download and not self.complete():
            raise missing(self._component, self.root, self.remedy)
        fetch(self.root, self._component, self.complete, self.fetch_into, self.remedy)

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs, once.

        Raises:
            FileNotFoundError: ``prepare_data`` was not called.
            ValueError: the files are not what they should be.
        """
        if not self.complete():
            raise FileNotFoundError(
                f"{self._component}: root (={str(self.root)!r}) does not hold the data set. {self.remedy}"
            )
        super().setup(stage)


class DataSet(Need):
    """The files of a data module, fetched as the module itself does it."""

    provides = "fetched"

    def __init__(self, data: DownloadedDataModule) -> None:
        self.data, self.what = data, data.title

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.data.root

    def problem(self) -> str | None:
        """See `Need`; contents are compared with checksums where the data set has some."""
        if not self.data.complete():
            return f"root (={str(self.where)!r}) does not hold the data set. {self.data.remedy}"
        return self.data.damage()

    def is_damaged(self) -> bool:
        """See `Need`; it may be somebody's own."""
        return self.data.complete()

    def measure(self) -> Measured:
        """See `Need`."""
        return self.data.measure()

    def provide(self) -> None:
        """See `Need`. What is damaged is not written over: it may be somebody's own."""
        if self.data.complete():
            return
        self.data.prepare_data()
