"""Any folder of images."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lit_vae.data.base import hold_out
from lit_vae.data.checks import Problem, check_held_out
from lit_vae.data.decode import Decoder, colour_problem
from lit_vae.data.folders import Folder, LeftOut, Walk, class_order, in_no_split, no_folder, split_folders, subfolders
from lit_vae.data.inspection import Report, inspect
from lit_vae.data.loader import Source
from lit_vae.data.opened import Refused
from lit_vae.data.pictures import Crop, Geometry, PictureDataModule, Pictures
from lit_vae.data.preprocess import pixel_preprocess
from lit_vae.data.splits import SPLITS, Part, Split
from lit_vae.images import ImageSpec
from lit_vae.ranges import NotNegativeInt, PositiveInt, Seed, Workers, checked
from lit_vae.run.needs import Need
from lit_vae.run.staging import staged
from lit_vae.run.weights import some

_REPORT_FILE = "image_files.txt"  # in the run directory
_SHARE = 0.1  # of the images, held out for validation and for test by default
_ID_STRIDE = 1 << 32  # so that images of different split folders have different noise


class ImageFolder(PictureDataModule):
    """All images under a folder, at any depth.

    If the folder contains ``train`` or ``training``, it is split already: beside it may be ``test`` or ``testing``, and
    ``val``, ``valid``, ``validation``, ``dev``, ``eval`` or ``evaluation``, in upper or lower case. Without a folder
    for validation, ``num_val`` images of ``train`` are held out. Any other folder is split by ``seed`` into
    ``num_val``, ``num_test``, and the rest. A folder with nearly the name of a split is an error. Hidden files are
    ignored, links are followed, and a file is counted once.

    `lit_vae.data.decode` says how files become levels. ``image_files.txt`` in the run directory lists skipped files.

    Args:
        root: the folder.
        size: height and width after resizing.
        crop: ``center`` resizes the shorter side to ``size`` and cuts out the centre; ``random`` cuts random squares
            for training, central ones for validation and test; ``none`` squeezes the image into the square.
        resize: length of the shorter side before the crop; null: ``size`` for ``center``, full resolution for
            ``random``.
        crops_per_image: number of random crops of each image in an epoch.
        channels: 1 (grey) or 3 (RGB).
        labels: ``folders``: the first folder on the path of an image is its class; null: no labels. Classes are sorted
            by name, or by number if all names are numbers.
        num_val: images held out for validation if there is no folder for it; null: 10 %, at least 1.
        num_test: images held out for test if the folder is not split; null: 10 %, at least 1.
        random_flip: mirror training images at random.
        dequantize: add uniform noise.
        background: colour of transparent pixels, such as ``white``, ``black`` or ``'#808080'``.
        value_range: ``[low, high]``, the values of black and white in images of more than 8 bits; null: 0 and 65535 for
            16 bits, and images of 32 bits or floats are refused.
        batch_size: images in a batch of one process; at most all training images.
        seed: of the split, the shuffling, the crops and all noise.
        on_error: for files that are not complete images: ``skip`` them with one warning, or ``raise`` an error.
        in_memory_mb: decode the splits into memory if they need at most this much.
        num_workers: processes that decode images that are not in memory; null: one per core, at most 8.
    """

    @checked
    def __init__(
        self,
        root: str,
        size: PositiveInt = 64,
        crop: Crop = "center",
        resize: PositiveInt | None = None,
        crops_per_image: PositiveInt = 1,
        channels: Literal[1, 3] = 3,
        labels: Literal["folders"] | None = None,
        num_val: PositiveInt | None = None,
        num_test: NotNegativeInt | None = None,
        random_flip: bool = False,
        dequantize: bool = False,
        background: str = "white",
        value_range: list[float] | None = None,
        batch_size: PositiveInt = 64,
        seed: Seed = 0,
        on_error: Literal["skip", "raise"] = "skip",
        in_memory_mb: NotNegativeInt = 2048,
        num_workers: Workers | None = None,
    ) -> None:
        problems = []
        if resize is not None and (resize < size or crop == "none"):
            problems.append(Problem("resize", resize, f"null, or at least size (={size}) with a crop"))
        if crops_per_image > 1 and crop != "random":
            problems.append(Problem("crops_per_image", crops_per_image, f"1 if crop (={crop!r}) is not 'random'"))
        if (expected := colour_problem(background)) is not None:
            problems.append(Problem("background", background, expected))
        if value_range is not None and not _is_range(value_range):
            problems.append(Problem("value_range", value_range, "null or [low, high], two numbers with low < high"))
        super().__init__(
            batch_size=batch_size,
            seed=seed,
            preprocess=pixel_preprocess(dequantize),
            random_flip=random_flip,
            in_memory_mb=in_memory_mb,
            num_workers=num_workers,
            problems=problems,
        )
        self.save_hyperparameters()
        self.root = staged(root)
        self.geometry = Geometry(size, crop, resize)
        self.decoder = Decoder(channels, background, None if value_range is None else (value_range[0], value_range[1]))
        self.crops = crops_per_image if crop == "random" else 0
        self.labels = labels
        self.num_val, self.num_test = num_val, num_test
        self.on_error = on_error
        self.run_files: dict[str, str] = {}

    @property
    def spec(self) -> ImageSpec:
        """The description of the images; classes are found by listing the folder.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: its subfolders are not clear.
        """
        size = self.geometry.size
        names = tuple(self.classes)
        return ImageSpec(self.decoder.channels, size, size, len(names), self.preprocess.values, names)

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        if self.labels is None:
            return []
        folder = self._splits.get("train", self.root)
        classes = class_order([path.name for path in subfolders(folder)])
        if not classes:
            raise ValueError(
                f"{self._component}: labels (='folders') needs a folder for each class in {folder}, which has none. "
                "Set data.init_args.labels to null."
            )
        return classes

    def why_empty(self, split: Split) -> str:
        """Return why a split is empty, with the remedy."""
        folder = self._splits.get(split)
        if folder is not None:
            return f"{folder} contains no image of its own: another split has them. Add some, or remove the folder."
        if self._splits:
            return f"root (={str(self.root)!r}) is split and has no folder {split}. Add it for {split} images."
        return super().why_empty(split)

    def needs(self) -> Iterable[Need]:
        """The folder."""
        return [Folder(self.root, self._component)]

    def prepare_data(self) -> None:
        """Check that the folder exists.

        Raises:
            FileNotFoundError: it does not.
            ValueError: its subfolders are not clear.
        """
        assert self._splits is not None

    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""
        return self.store({split: self._pictures(split, self._found[split]) for split in SPLITS[part]})

    def _pictures(self, split: Split, paths: list[Path]) -> Pictures:
        first_id = _ID_STRIDE * ("train", "val", "test").index(split)
        crops = self.crops if split == "train" else 0
        labels = torch.tensor(self._labels(split, paths), dtype=torch.int64)
        return Pictures(paths, labels, first_id, self.geometry, self.decoder, crops, self.seed)

    def _labels(self, split: Split, paths: list[Path]) -> Sequence[int]:
        if self.labels is None:
            return [-1] * len(paths)
        base = self._splits.get(split, self._splits.get("train", self.root))  # val may be held out of train
        names = [path.relative_to(base).parts[0] for path in paths]
        number = {name: i for i, name in enumerate(self.classes)}
        strange = sorted({name for name in names if name not in number})
        if strange:
            raise ValueError(
                f"{self._component}: labels (='folders') needs each image in one of the {len(number)} class folders of "
                f"training, but {base} has also {some(strange, 3)}. Move these, or set data.init_args.labels to null."
            )
        return [number[name] for name in names]

    @cached_property
    def _splits(self) -> dict[Split, Path]:
        """The folders of the splits; empty if root is not split."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self._component}: {no_folder(self.root)}")
        try:
            return split_folders(self.root)
        except ValueError as error:
            raise ValueError(f"{self._component}: {error}") from error

    @cached_property
    def _found(self) -> dict[Split, list[Path]]:
        """The images of each split; cached, so that there is one warning."""
        found = self._whole_images()
        held = {} if "val" in found else {"val": self.num_val}
        if not self._splits:
            held["test"] = self.num_test
        found.setdefault("test", [])
        train = found["train"]
        sizes = {name: max(1, int(_SHARE * len(train))) if n is None else n for name, n in held.items()}
        check_held_out(
            self._component, len(train), "images to train on", **{f"num_{name}": n for name, n in sizes.items()}
        )
        parts = hold_out(len(train), *sizes.values(), seed=self.seed)
        for name, part in zip(("train", *sizes), parts, strict=True):
            found[name] = [train[i] for i in part.tolist()]  # type: ignore[index]
        return found

    def _whole_images(self) -> dict[Split, list[Path]]:
        """The images of each split folder, or all as ``train``; warns of skipped files."""
        folders = self._splits or {"train": self.root}
        walk = Walk(self.root)
        # a file in two splits is not used for training
        files = {split: list(walk.files(folders[split])) for split in ("test", "val", "train") if split in folders}
        try:
            report = inspect([path for split in folders for path in files[split]], self.decoder, self.geometry)
        except Refused as error:
            raise ValueError(f"{self._component}: {error}") from error
        report.add(walk)
        report.left_out += [
            LeftOut(path, "in no split", "outside of the split folders")
            for path in in_no_split(self.root, self._splits)
        ]
        self._report(report, sum(map(len, files.values())) + len(walk.left_out))
        whole = set(report.whole)
        return {split: [path for path in files[split] if path in whole] for split in folders}

    def _report(self, report: Report, total: int) -> None:
        """Warn of skipped files, or raise; warn of unusual images."""
        if lines := report.lines(self.root):
            self.run_files = {_REPORT_FILE: "".join(f"{line}\n" for line in lines)}
        if skipped := report.skipped(self.root):
            text = f"{len(report.left_out)} of {total} files under root (={str(self.root)!r}): {skipped}."
            if self.on_error == "raise":
                raise ValueError(
                    f"{self._component}: on_error (='raise') allows only complete images, but {text} "
                    "Remove them, or set data.init_args.on_error to 'skip'."
                )
            rank_zero_warn(f"{self._component}: skipped {text}{self._where()}", category=UserWarning)
        for sentence in report.sentences(self.root):
            rank_zero_warn(f"{self._component}: {sentence}", category=UserWarning)

    def _where(self) -> str:
        if self.trainer is None:
            return ""
        return f" {Path(self.trainer.default_root_dir, _REPORT_FILE)} lists all of them."


def _is_range(values: list[float]) -> bool:
    return len(values) == 2 and all(map(math.isfinite, values)) and values[0] < values[1]
