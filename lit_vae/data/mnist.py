"""MNIST and Fashion-MNIST."""

import gzip
import hashlib
from math import prod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as pad_image
from torchvision import datasets

from lit_vae.data.base import hold_out
from lit_vae.data.checks import Problem, check_held_out, pixel_problems
from lit_vae.data.downloaded import DownloadedDataModule
from lit_vae.data.loader import Source, Tensors
from lit_vae.data.preprocess import pixel_preprocess
from lit_vae.data.splits import Part, Split
from lit_vae.images import ImageSpec
from lit_vae.ranges import NotNegativeInt, PositiveInt, Seed, checked
from lit_vae.run.needs import sha256

_SIDE = 28
_TEST_IDS = 1 << 32  # so that test images have other noise than training images
_PREFIX = {"train": "train", "test": "t10k"}
_MNIST_SHA256 = {  # of the unpacked files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_PUBLISHED_COUNT = {"train": 60_000, "test": 10_000}


class MNIST(DownloadedDataModule):
    """MNIST: 28 x 28 grey digits, 60,000 - ``num_val`` for training, ``num_val``, and the 10,000 test images.

    With ``binarization: larochelle`` the splits are those of the binarised files, 50,000 + 10,000 + 10,000 images
    without labels; ``num_val`` and ``seed`` do not change them.

    Args:
        root: folder that contains ``MNIST/raw/*-ubyte`` (torchvision's layout); for ``larochelle`` the files
            ``binarized_mnist_{train,valid,test}.amat``.
        batch_size: images in a batch of one process.
        num_val: images held out of the 60,000 for validation.
        binarization: ``dynamic`` draws each pixel with probability ``u / 255``, again in each epoch (Burda et al.,
            2016; validation and test images are drawn once); ``static`` draws once, from ``seed``; ``threshold`` cuts
            at 128; ``larochelle`` reads the files of Larochelle and Murray (2011). Null leaves the images grey.
        dequantize: add uniform noise to grey images.
        pad: zeros on each side; 2 makes 32 x 32.
        seed: of the split, the shuffling and all noise.
        download: fetch the data set if it is missing.
    """

    dataset: ClassVar[type[datasets.MNIST]] = datasets.MNIST
    checksums: ClassVar[dict[str, str]] = _MNIST_SHA256
    """SHA-256 of the files, required if they have the published number of images; empty: unknown."""
    has_larochelle: ClassVar[bool] = True
    """Whether there are files of Larochelle and Murray."""
    class_names: ClassVar[tuple[str, ...]] = ()

    @checked
    def __init__(
        self,
        root: str = "data",
        batch_size: PositiveInt = 128,
        num_val: PositiveInt = 5000,
        binarization: Literal["dynamic", "static", "threshold", "larochelle"] | None = None,
        dequantize: bool = False,
        pad: NotNegativeInt = 0,
        seed: Seed = 0,
        download: bool = True,
    ) -> None:
        problems = pixel_problems(dequantize, binarization)
        if binarization == "larochelle" and not self.has_larochelle:
            problems.append(Problem("binarization", binarization, "dynamic, static, threshold or null"))
        super().__init__(
            root=root,
            download=download,
            batch_size=batch_size,
            seed=seed,
            preprocess=pixel_preprocess(dequantize, None if problems else binarization),
            problems=problems,
        )
        self.save_hyperparameters()
        self.num_val = num_val
        self.larochelle = binarization == "larochelle"
        self.pad = pad

    @property
    def spec(self) -> ImageSpec:
        """The description of the images."""
        side = _SIDE + 2 * self.pad
        classes = 0 if self.larochelle else 10
        return ImageSpec(1, side, side, classes, self.preprocess.values, self.class_names)

    @property
    def title(self) -> str:
        """A name for messages."""
        return f"{self._component} of Larochelle" if self.larochelle else self._component

    @property
    def remedy(self) -> str:
        """What to do by hand if files are missing."""
        names = ", ".join(str(path.relative_to(self.root)) for path in self.files())
        return f"Put {names} there (data.init_args.root)."

    def damage(self) -> str | None:
        """See the base. Archives beside the files are compared with their published checksums."""
        published = {} if self.larochelle else dict(self.dataset.resources)
        for path in self.files():
            archive = path.with_name(f"{path.name}.gz")
            if path.name + ".gz" in published and archive.is_file():
                packed = archive.read_bytes()
                if hashlib.md5(packed).hexdigest() != published[archive.name]:
                    return f"{archive} does not have the checksum of the data set. Delete it, and {path} with it."
                if gzip.decompress(packed) != path.read_bytes():
                    return f"{path} does not equal the content of {archive}. Delete it and fetch it again."
        return super().damage()

    def fetch_into(self, folder: Path) -> None:
        """Download the data set; torchvision verifies checksums."""
        if self.larochelle:
            raise FileNotFoundError("the binarised files are not downloaded")
        self.dataset(str(folder), download=True)

    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""
        if self.larochelle:
            names = {"train": "train", "val": "valid"} if part == "fit" else {"test": "test"}
            return {split: self._binarized(name) for split, name in names.items()}  # type: ignore[misc]
        if part == "test":
            images, labels = self._read("test")
            return {"test": Tensors(images, labels, torch.arange(len(images)) + _TEST_IDS)}
        images, labels = self._read("train")
        check_held_out(self._component, len(images), "images in the training file", num_val=self.num_val)
        train, val = hold_out(len(images), self.num_val, seed=self.seed)
        return {"train": Tensors(images[train], labels[train], train), "val": Tensors(images[val], labels[val], val)}

    def _raw(self) -> Path:
        return self.root / self.dataset.__name__ / "raw"

    def files(self) -> list[Path]:
        """All files of the data set."""
        if self.larochelle:
            return [self._amat(name) for name in ("train", "valid", "test")]
        kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return [self._raw() / f"{prefix}-{kind}" for prefix in _PREFIX.values() for kind in kinds]

    def _amat(self, name: str) -> Path:
        return self.root / f"binarized_mnist_{name}.amat"

    def _read(self, split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Read images ``(N, 1, H, W)`` uint8 and labels ``(N,)`` int64."""
        prefix = self._raw() / _PREFIX[split]
        images = read_idx(Path(f"{prefix}-images-idx3-ubyte"), (_SIDE, _SIDE))
        labels = read_idx(Path(f"{prefix}-labels-idx1-ubyte"), ()).long()
        if len(images) != len(labels) or labels.max() >= 10:
            raise ValueError(
                f"{prefix}-labels-idx1-ubyte: {len(labels)} labels up to {int(labels.max())} do not belong to "
                f"{len(images)} images of 10 classes. Delete the files and fetch them again."
            )
        if len(images) == _PUBLISHED_COUNT[split]:
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
                self._verify(Path(f"{prefix}-{kind}"))
        return pad_image(images[:, None], [self.pad] * 4), labels

    def _verify(self, path: Path) -> None:
        if self.checksums.get(path.name) not in (None, sha256([path])):
            raise ValueError(f"{path}: its SHA-256 is not that of the data set. Delete it and fetch it again.")

    def _binarized(self, name: str) -> Tensors:
        """Read a file of lines of 784 characters 0 or 1, separated by spaces."""
        path = self._amat(name)
        text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        bits = torch.from_numpy(text[(text == ord("0")) | (text == ord("1"))] - ord("0"))
        if not len(bits) or len(bits) % _SIDE**2 or not np.isin(text, np.frombuffer(b"01 \r\n", dtype=np.uint8)).all():
            raise ValueError(f"{path}: not lines of {_SIDE**2} digits 0 or 1. Delete the file and fetch it again.")
        images = pad_image(bits.view(-1, 1, _SIDE, _SIDE) * 255, [self.pad] * 4)
        return Tensors(images, torch.full((len(images),), -1), torch.arange(len(images)))


class FashionMNIST(MNIST):
    """Fashion-MNIST: 28 x 28 grey pictures of clothes, in the splits of :class:`MNIST` and with its arguments.

    It has no ``binarization: larochelle``. ``root`` contains ``FashionMNIST/raw/*-ubyte``.
    """

    dataset = datasets.FashionMNIST
    class_names = tuple(datasets.FashionMNIST.classes)
    checksums: ClassVar[dict[str, str]] = {}
    has_larochelle = False


def read_idx(path: Path, image_shape: tuple[int, ...]) -> Tensor:
    """Read an idx file of bytes: ``(N, *image_shape)`` uint8.

    Raises:
        ValueError: it is not such a file, or is not complete.
    """
    content = path.read_bytes()
    dims = 1 + len(image_shape)
    start = 4 + 4 * dims
    if content[:4] != bytes([0, 0, 0x08, dims]) or len(content) < start:
        raise ValueError(f"{path}: not an idx file of bytes in {dims} dimensions. Delete it and fetch it again.")
    shape = tuple(np.frombuffer(content, ">i4", count=dims, offset=4).tolist())
    if shape[0] < 1 or shape[1:] != image_shape:
        raise ValueError(f"{path}: contains {shape}, expected (N, {', '.join(map(str, image_shape))}). Fetch it again.")
    if len(content) != start + prod(shape):
        raise ValueError(
            f"{path}: {len(content)} bytes, expected {start + prod(shape)} for {shape}; the file is truncated or "
            "damaged. Delete it and fetch it again."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
