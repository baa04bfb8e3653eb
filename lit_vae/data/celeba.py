"""CelebA."""

import hashlib
from pathlib import Path
from typing import Annotated

import torch
from torchvision import datasets

from lit_vae.data.checks import Problem
from lit_vae.data.decode import Decoder
from lit_vae.data.downloaded import DownloadedDataModule
from lit_vae.data.loader import Source
from lit_vae.data.pictures import Geometry, PictureDataModule, Pictures
from lit_vae.data.preprocess import pixel_preprocess
from lit_vae.data.splits import SPLITS, Part, Split
from lit_vae.images import ImageSpec
from lit_vae.ranges import NotNegativeInt, PositiveInt, Seed, Within, Workers, checked
from lit_vae.run.needs import Measured, of_names

_WIDTH = 178
_PARTITION: tuple[Split, ...] = ("train", "val", "test")  # 0, 1, 2 in the file
_ID_STRIDE = 1 << 32


class CelebA(PictureDataModule, DownloadedDataModule):
    """CelebA: aligned faces in the official partition, 162,770 + 19,867 + 19,962.

    The central ``crop`` x ``crop`` square of the 178 x 218 images is resized to ``size``: 140 as in WAE (Tolstikhin et
    al., 2018), or 148 as in PyTorch-VAE. Report the crop with your numbers, which depend on it. (The crop of 148 in
    VAE/GAN and NVAE lies 5 pixels below the centre.)

    Args:
        root: folder that contains ``celeba/img_align_celeba/*.jpg`` and ``celeba/list_*.txt`` (torchvision's layout).
        size: height and width after resizing.
        crop: side of the central square that is resized.
        attribute: column of ``list_attr_celeba.txt`` for labels 0 and 1, such as ``Smiling``; null: no labels.
        random_flip: mirror training images at random.
        dequantize: add uniform noise.
        batch_size: images in a batch of one process.
        seed: of the shuffling and all noise.
        download: fetch the data set if it is missing (Google often refuses).
        in_memory_mb: decode the splits into memory if they need at most this much.
        num_workers: processes that decode images that are not in memory; null: one per core, at most 8.
    """

    @checked
    def __init__(
        self,
        root: str = "data",
        size: PositiveInt = 64,
        crop: Annotated[int, Within(ge=1, le=_WIDTH)] = 140,
        attribute: str | None = None,
        random_flip: bool = False,
        dequantize: bool = False,
        batch_size: PositiveInt = 128,
        seed: Seed = 0,
        download: bool = True,
        in_memory_mb: NotNegativeInt = 4096,
        num_workers: Workers | None = None,
    ) -> None:
        super().__init__(
            root=root,
            download=download,
            batch_size=batch_size,
            seed=seed,
            preprocess=pixel_preprocess(dequantize),
            random_flip=random_flip,
            in_memory_mb=in_memory_mb,
            num_workers=num_workers,
        )
        self.save_hyperparameters()
        self.geometry = Geometry(size, cut_first=crop)
        self.attribute = attribute

    @property
    def spec(self) -> ImageSpec:
        """The description of the images."""
        size = self.geometry.size
        names = (f"not {self.attribute}", self.attribute) if self.attribute else ()
        return ImageSpec(3, size, size, len(names), self.preprocess.values, names)

    @property
    def title(self) -> str:
        """A name for messages."""
        return f"{self._component} with attributes" if self.attribute else self._component

    @property
    def remedy(self) -> str:
        """What to do by hand if files are missing."""
        return (
            "Get img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack them to "
            f"{self._folder / 'img_align_celeba'}/*.jpg and {self._folder}/list_*.txt (data.init_args.root)."
        )

    def complete(self) -> bool:
        """Tell whether all files are there."""
        return (self._folder / "img_align_celeba").is_dir() and all(path.is_file() for path in self._lists())

    def files(self) -> list[Path]:
        """The lists and all images of the partition."""
        names = sorted(name for split in self._partition().values() for name in split)
        return [*self._lists(), *(self._folder / "img_align_celeba" / name for name in names)]

    def damage(self) -> str | None:
        """See the base. Images are only counted, since no checksums of them are published."""
        published = {name: md5 for _, md5, name in datasets.CelebA.file_list}
        for path in self._lists():
            if hashlib.md5(path.read_bytes()).hexdigest() != published[path.name]:
                return f"{path} does not have the checksum of the data set. Delete it and fetch it again."
        there = {path.name for path in (self._folder / "img_align_celeba").iterdir()}
        absent = [path for path in self.files() if path.suffix == ".jpg" and path.name not in there]
        return f"{len(absent)} images are missing, such as {absent[0]}. {self.remedy}" if absent else None

    def measure(self) -> Measured:
        """See the base. The 202,599 images are not read."""
        return of_names(self.files(), self.root)

    def fetch_into(self, folder: Path) -> None:
        """Download the data set; torchvision verifies checksums."""
        datasets.CelebA(str(folder), download=True)
        (folder / "celeba" / "img_align_celeba.zip").unlink(missing_ok=True)  # it is unpacked

    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""
        partition = self._partition()
        attribute = self._attribute()
        return self.store({split: self._pictures(split, partition[split], attribute) for split in SPLITS[part]})

    @property
    def _folder(self) -> Path:
        return self.root / "celeba"

    def _lists(self) -> list[Path]:
        names = ["list_eval_partition.txt", *(["list_attr_celeba.txt"] if self.attribute else [])]
        return [self._folder / name for name in names]

    def _pictures(self, split: Split, names: list[str], attribute: dict[str, int]) -> Pictures:
        labels = torch.tensor([attribute.get(name, -1) for name in names], dtype=torch.int64)
        paths = [self._folder / "img_align_celeba" / name for name in names]
        return Pictures(paths, labels, _ID_STRIDE * _PARTITION.index(split), self.geometry, Decoder(3))

    def _partition(self) -> dict[Split, list[str]]:
        """Read the official partition: lines of a file name and 0, 1 or 2."""
        path = self._folder / "list_eval_partition.txt"
        names: dict[Split, list[str]] = {split: [] for split in _PARTITION}
        for line in path.read_text().splitlines():
            name, _, number = line.partition(" ")
            if number.strip() not in ("0", "1", "2"):
                raise ValueError(f"{path}: {line!r} is not a file name and 0, 1 or 2. Fetch the file again.")
            names[_PARTITION[int(number)]].append(name)
        empty = [split for split, found in names.items() if not found]
        if empty:
            raise ValueError(f"{path}: no images for {', '.join(empty)}. Fetch the file again.")
        return names

    def _attribute(self) -> dict[str, int]:
        """Read the labels: a line with the number of images, one with names, then -1 or 1 for each."""
        if self.attribute is None:
            return {}
        _, header, *lines = (self._folder / "list_attr_celeba.txt").read_text().splitlines()
        known = header.split()
        if self.attribute not in known:
            expected = f"null or one of {', '.join(known)}"
            raise ValueError(Problem("attribute", self.attribute, expected).text(self._component))
        column = known.index(self.attribute) + 1
        return {fields[0]: int(fields[column] == "1") for fields in map(str.split, lines)}
