"""CIFAR-10."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets

from lit_vae.data.base import hold_out
from lit_vae.data.checks import check_held_out
from lit_vae.data.downloaded import DownloadedDataModule
from lit_vae.data.loader import Source, Tensors
from lit_vae.data.preprocess import pixel_preprocess
from lit_vae.data.splits import Part, Split
from lit_vae.images import ImageSpec
from lit_vae.ranges import PositiveInt, Seed, checked

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TEST_IDS = 1 << 32  # so that test images have other noise than training images


class CIFAR10(DownloadedDataModule):
    """CIFAR-10: 32 x 32 colour images, 50,000 - ``num_val`` for training, ``num_val``, and the 10,000 test images.

    Args:
        root: folder that contains ``cifar-10-batches-py`` (torchvision's layout); checksums are verified at every read.
        batch_size: images in a batch of one process.
        num_val: images held out of the 50,000 for validation.
        random_flip: mirror training images at random.
        dequantize: add uniform noise.
        seed: of the split, the shuffling and all noise.
        download: fetch the data set if it is missing.
    """

    @checked
    def __init__(
        self,
        root: str = "data",
        batch_size: PositiveInt = 128,
        num_val: PositiveInt = 5000,
        random_flip: bool = False,
        dequantize: bool = False,
        seed: Seed = 0,
        download: bool = True,
    ) -> None:
        super().__init__(
            root=root,
            download=download,
            batch_size=batch_size,
            seed=seed,
            preprocess=pixel_preprocess(dequantize),
            random_flip=random_flip,
        )
        self.save_hyperparameters()
        self.num_val = num_val

    @property
    def spec(self) -> ImageSpec:
        """The description of the images."""
        return ImageSpec(3, 32, 32, 10, self.preprocess.values, _CLASSES)

    @property
    def remedy(self) -> str:
        """What to do by hand if files are missing."""
        return f"Unpack {datasets.CIFAR10.filename} there (data.init_args.root)."

    def files(self) -> list[Path]:
        """All files of the data set; reading them verifies their checksums."""
        lists = datasets.CIFAR10.train_list + datasets.CIFAR10.test_list
        names = [name for name, _ in lists] + [datasets.CIFAR10.meta["filename"]]
        return [self.root / datasets.CIFAR10.base_folder / name for name in names]

    def fetch_into(self, folder: Path) -> None:
        """Download the data set; torchvision verifies checksums."""
        with _numpy_deprecations_ignored():
            datasets.CIFAR10(str(folder), download=True)
        (folder / datasets.CIFAR10.filename).unlink(missing_ok=True)  # it is unpacked

    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""
        whole = self._read(train=part == "fit")
        if part == "test":
            return {"test": whole}
        check_held_out(self._component, len(whole), "images in the training files", num_val=self.num_val)
        train, val = hold_out(len(whole), self.num_val, seed=self.seed)
        return {"train": Tensors(*whole.read(train)), "val": Tensors(*whole.read(val))}

    def _read(self, train: bool) -> Tensors:
        try:
            with _numpy_deprecations_ignored():
                dataset = datasets.CIFAR10(str(self.root), train=train)
        except RuntimeError as error:
            folder = self.root / datasets.CIFAR10.base_folder
            raise ValueError(
                f"{self._component}: the files in {folder} do not have the checksums of the data set. "
                "Delete the folder and fetch it again (lit-vae prepare)."
            ) from error
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        ids = torch.arange(len(images)) + (0 if train else _TEST_IDS)
        return Tensors(images, torch.tensor(dataset.targets), ids)


@contextmanager
def _numpy_deprecations_ignored() -> Iterator[None]:
    """Silence NumPy 2.4, which warns that the pickles of CIFAR-10 are old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        yield
