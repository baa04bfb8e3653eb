"""The base of data modules of codes and of latents: a folder that ``lit-vae encode`` wrote."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from lit_vae.data.encoded_files import Manifest
from lit_vae.data.loader import BatchT, Source, StoredT
from lit_vae.data.splits import SPLITS, Part, Split, SplitDataModule
from lit_vae.run.needs import Need, NeededFile
from lit_vae.run.staging import staged


class EncodedDataModule(SplitDataModule[StoredT, BatchT]):
    """Batches of what a trained model made of images. They stay on disk; a batch reads only its rows."""

    what: ClassVar[str]
    """What the folder holds: codes or latents."""

    def __init__(self, root: str, batch_size: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.root = str(staged(root))

    @property
    @abstractmethod
    def manifest(self) -> Manifest[Any, Any]:
        """The description in the folder.

        Raises:
            FileNotFoundError, ValueError: it is missing or damaged.
        """

    @property
    def spec(self) -> Any:
        """What the folder holds, a `CodeSpec` or `LatentSpec`, from the manifest alone; raises as `manifest`."""
        return self.manifest.spec

    @abstractmethod
    def open_split(self, split: str) -> Source[StoredT]:
        """Open the files of a split.

        Raises:
            FileNotFoundError, ValueError: they are missing, or do not fit the description.
        """

    def needs(self) -> Iterable[Need]:
        """The folder, and the checkpoint that it names, which decodes."""
        yield EncodedFolder(self)
        try:
            spec = self.spec
        except (FileNotFoundError, ValueError):  # reported as a problem of the folder
            return
        remedy = "Restore it, or encode again with another checkpoint and train a new prior."
        yield NeededFile(f"stage 1 of the {self.what}", spec.checkpoint, remedy, spec.checkpoint_sha256)

    def prepare_data(self) -> None:
        """Check that the folder has a description.

        Raises:
            FileNotFoundError, ValueError: it has none.
        """
        _ = self.manifest

    def load(self, part: Part) -> dict[Split, Source[StoredT]]:
        """Open the splits of a part."""
        return {split: self.open_split(split) for split in SPLITS[part]}


class EncodedFolder(NeededFile):
    """A folder that fits its description."""

    def __init__(self, data: EncodedDataModule[Any, Any]) -> None:
        super().__init__(data.what, data.root, "")
        self.data = data

    def problem(self) -> str | None:
        """See `Need`."""
        try:
            for split in self.data.manifest.splits:
                self.data.open_split(split)
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return None
