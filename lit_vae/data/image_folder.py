"""Any folder of images, and what CelebA shares with it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lit_vae.data.base import ImageDataModule, Part, Split, hold_out
from lit_vae.data.checks import Problem, check_held_out
from lit_vae.data.loader import Order, Source, TensorLoader, WorkerLoader
from lit_vae.data.pictures import Crop, Geometry, Pictures, broken, find_files, is_image_name
from lit_vae.data.preprocess import Preprocess, pixel_preprocess
from lit_vae.images import ImageSpec
from lit_vae.needs import Measured, Need, of_names
from lit_vae.ranges import NotNegativeInt, PositiveInt, Seed, Workers, checked
from lit_vae.staging import staged
from lit_vae.threads import cores

_MOST_WORKERS = 8
_NAMED = 3  # files named in a warning
_ID_STRIDE = 1 << 32  # images of different split folders draw different noise


class PictureDataModule(ImageDataModule):
    """A data module over image files: held decoded in memory where they fit, else decoded by worker processes.

    A concrete class calls :meth:`store` on each split's pictures.
    """

    def __init__(
        self, *, in_memory_mb: int, num_workers: int | None, problems: Iterable[Problem] = (), **kwargs: Any
    ) -> None:
        super().__init__(problems=problems, **kwargs)
        self.in_memory_mb = in_memory_mb
        self.num_workers = num_workers

    def store(self, pictures: dict[Split, Pictures]) -> dict[Split, Source]:
        """Decode the splits into memory, if they fit together and are the same in each epoch."""
        total = sum(split.nbytes for split in pictures.values())
        if total > self.in_memory_mb << 20 or any(split.crops for split in pictures.values()):
            return dict(pictures)
        return {name: split.to_memory(self._workers()) for name, split in pictures.items()}

    def _loader(self, source: Source, order: Order, transform: Preprocess) -> TensorLoader:
        if not isinstance(source, Pictures):
            return super()._loader(source, order, transform)
        return WorkerLoader(source, order, transform, self.seed, self._device(), num_workers=self._workers())

    def _workers(self) -> int:
        """Return how many worker processes this process may have."""
        if self.num_workers is not None:
            return self.num_workers
        local = self.trainer.num_devices if self.trainer is not None else 1
        return min(_MOST_WORKERS, cores(local).number)


class ImageFolder(PictureDataModule):
    """All images under a folder, at any depth.

    A folder with ``train`` in it is taken as split: ``train``, ``test``, and ``val`` or else ``num_val`` images held
    out of ``train``. Any other folder is split by ``seed`` into ``num_val``, ``num_test``, and the rest. Hidden files
    are ignored.

    Args:
        root: the folder.
        size: height and width of the images made.
        crop: ``center`` resizes the shorter side to ``size`` and cuts out the centre; ``random`` cuts random squares
            for training, central ones for validation and test; ``none`` squeezes the image into the square.
        resize: what the shorter side is resized to before the crop; null is ``size`` for ``center``, and the full
            resolution for ``random``.
        crops_per_image: random crops of each image in an epoch.
        channels: 1 (grey) or 3 (RGB).
        labels: ``folders`` takes the first folder on the way to an image as its class; null: no labels.
        num_val: images held out for validation, where there is no folder ``val``.
        num_test: images held out for test, where the folder is not split.
        random_flip: mirror training images at random.
        dequantize: add uniform noise.
        batch_size: images in a batch of one process.
        seed: of the split, the shuffling, the crops and all noise.
        on_error: ``skip`` leaves out files that are not whole images, with one warning; ``raise`` does not accept them.
        in_memory_mb: splits that take at most this much memory, decoded, are held there.
        num_workers: processes that decode what is not in memory; null: one a core, at most 8.
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
        num_val: PositiveInt = 100,
        num_test: NotNegativeInt = 100,
        random_flip: bool = False,
        dequantize: bool = False,
        batch_size: PositiveInt = 64,
        seed: Seed = 0,
        on_error: Literal["skip", "raise"] = "skip",
        in_memory_mb: NotNegativeInt = 2048,
        num_workers: Workers | None = None,
    ) -> None:
        problems = _one_of(crop=(crop, ("center", "random", "none")), channels=(channels, (1, 3)))
        problems += _one_of(labels=(labels, (None, "folders")), on_error=(on_error, ("skip", "raise")))
        if resize is not None and (resize < size or crop == "none"):
            problems.append(Problem("resize", resize, f"null, or at least size (={size}) with a crop"))
        if crops_per_image > 1 and crop != "random":
            problems.append(Problem("crops_per_image", crops_per_image, f"1 where crop (={crop!r}) is not 'random'"))
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
        self.crops = crops_per_image if crop == "random" else 0
        self.channels = channels
        self.labels = labels
        self.num_val, self.num_test = num_val, num_test
        self.on_error = on_error
        self._found: dict[Split, list[Path]] | None = None

    @property
    def spec(self) -> ImageSpec:
        """What the images are; classes are counted by listing the folder.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        size = self.geometry.size
        return ImageSpec(self.channels, size, size, len(self.classes), self.preprocess.values)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        if self.labels is None:
            return []
        folder = self._split_folders().get("train", self.root)
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not classes:
            raise ValueError(
                f"{self._component}: labels (='folders') needs a folder for each class in {folder}, there is none. "
                "Set data.init_args.labels to null."
            )
        return classes

    def needs(self) -> Iterable[Need]:
        """The folder."""
        return [Folder(self.root, self._component)]

    def prepare_data(self) -> None:
        """Check that the folder is there.

        Raises:
            FileNotFoundError: it is not.
        """
        self._split_folders()

    def load(self, part: Part) -> dict[Split, Source]:
        """Read the splits of a part."""
        found = self._find()
        splits: tuple[Split, ...] = ("train", "val") if part == "fit" else ("test",)
        return self.store({split: self._pictures(split, found[split]) for split in splits})

    def _pictures(self, split: Split, paths: list[Path]) -> Pictures:
        first_id = _ID_STRIDE * ("train", "val", "test").index(split)
        crops = self.crops if split == "train" else 0
        labels = torch.tensor(self._labels(split, paths), dtype=torch.int64)
        return Pictures(paths, labels, first_id, self.geometry, self.channels, crops, self.seed)

    def _labels(self, split: Split, paths: list[Path]) -> Sequence[int]:
        if self.labels is None:
            return [-1] * len(paths)
        folders = self._split_folders()
        base = folders.get(split, folders.get("train", self.root))  # val may be held out of train
        names = [path.relative_to(base).parts[0] for path in paths]
        number = {name: i for i, name in enumerate(self.classes)}
        strange = sorted({name for name in names if name not in number})
        if strange:
            raise ValueError(
                f"{self._component}: labels (='folders') needs each image in one of the {len(number)} class folders of "
                f"training; these are not: {_some(strange)} (in {base}). Move them, or set data.init_args.labels to "
                "null."
            )
        return [number[name] for name in names]

    def _split_folders(self) -> dict[Split, Path]:
        """Return the folders of a root that is split, or nothing."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self._component}: {_no_folder(self.root)}")
        if not (self.root / "train").is_dir():
            return {}
        splits: tuple[Split, ...] = ("train", "val", "test")
        return {split: self.root / split for split in splits if (self.root / split).is_dir()}

    def _find(self) -> dict[Split, list[Path]]:
        """Find the images of each split, once: those that are left out are told of once."""
        if self._found is None:
            folders = self._split_folders()
            good = self._whole_images(list(folders.values()) or [self.root])
            if folders:
                found = {split: [p for p in good if p.is_relative_to(folder)] for split, folder in folders.items()}
                found.setdefault("test", [])
                held = {} if "val" in found else {"val": self.num_val}
            else:
                found = {"train": good}
                held = {"val": self.num_val, "test": self.num_test}
            train = found["train"]
            check_held_out(
                self._component, len(train), "images to train on", **{f"num_{name}": n for name, n in held.items()}
            )
            parts = hold_out(len(train), *held.values(), seed=self.seed)
            for name, part in zip(("train", *held), parts, strict=True):
                found[name] = [train[i] for i in part.tolist()]  # type: ignore[index]
            self._found = found
        return self._found

    def _whole_images(self, folders: list[Path]) -> list[Path]:
        files = [path for folder in folders for path in find_files(folder)]
        named = [path for path in files if is_image_name(path)]
        other = [path for path in files if not is_image_name(path)]
        corrupt = broken(named)
        if corrupt or other:
            kinds = {"corrupt": corrupt, "not an image": other}
            names = {kind: [str(p.relative_to(self.root)) for p in paths] for kind, paths in kinds.items()}
            list_of = "; ".join(f"{len(paths)} {kind}: {_some(paths)}" for kind, paths in names.items() if paths)
            text = f"{len(corrupt) + len(other)} of {len(files)} files under root (={str(self.root)!r}): {list_of}."
            if self.on_error == "raise":
                raise ValueError(
                    f"{self._component}: on_error (='raise') accepts only whole images, but {text} "
                    "Remove them, or set data.init_args.on_error to 'skip'."
                )
            rank_zero_warn(f"{self._component}: skipped {text}", category=UserWarning)
        skipped = set(corrupt)
        return [path for path in named if path not in skipped]


class Folder(Need):
    """A folder with images in it, which somebody else fills.

    Args:
        root: the folder.
        what: whose it is.
    """

    def __init__(self, root: Path, what: str) -> None:
        self.root, self.what = root, what

    @property
    def where(self) -> Path:
        """See `Need`."""
        return self.root

    def problem(self) -> str | None:
        """See `Need`; images are not read, since there may be millions."""
        if not self.root.is_dir():
            return _no_folder(self.root)
        if any(is_image_name(path) for path in find_files(self.root)):
            return None
        return f"root (={str(self.root)!r}) holds no image. Put some there, or give another: data.init_args.root."

    def measure(self) -> Measured:
        """See `Need`."""
        return of_names((path for path in find_files(self.root) if is_image_name(path)), self.root)


def _no_folder(root: Path) -> str:
    return f"root (={str(root)!r}) is not a folder. Give an existing folder of images: data.init_args.root."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _one_of(**arguments: tuple[object, tuple[object, ...]]) -> list[Problem]:
    """Return the arguments whose value is not one of the valid ones."""
    return [
        Problem(name, value, f"one of {', '.join('null' if v is None else str(v) for v in valid)}")
        for name, (value, valid) in arguments.items()
        if value not in valid
    ]
