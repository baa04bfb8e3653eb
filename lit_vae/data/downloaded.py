"""What data modules share whose files can be fetched."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from lit_vae.data.base import ImageDataModule
from lit_vae.data.files import fetch, missing


class DownloadedDataModule(ImageDataModule):
    """A data set that lies in a folder, ``root``, and can be fetched into it.

    A concrete class says whether it is complete and how it is downloaded.
    """

    def __init__(self, *, root: str, download: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)
        self.download = download

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
