import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import levels, write_gradient, write_image
from PIL import Image
from torch import Tensor

from lit_vae.data import ImageFolder
from lit_vae.data.loader import Tensors, WorkerLoader
from lit_vae.data.pictures import Pictures
from lit_vae.images import ImageSpec

Make = Callable[..., str]


def folder(root: str | Path, **changes: object) -> ImageFolder:
    arguments = {"size": 8, "num_val": 4, "num_test": 3, "batch_size": 4} | changes
    return ImageFolder(str(root), **arguments)  # type: ignore[arg-type]


def grey_levels(data: ImageFolder, split: str) -> list[int]:
    """Return the level of each image of a split."""
    x = torch.cat([x for x, _ in data.ordered_dataloader(split)])  # type: ignore[arg-type]
    return levels(x)[:, 0, 0, 0].tolist()


def test_a_folder_is_split_by_seed(picture_folder: Make) -> None:
    root = picture_folder(20)
    data = folder(root)
    data.prepare_data()
    assert data.spec == ImageSpec(3, 8, 8, 0, "uint8")
    parts = {split: grey_levels(data, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 13, "val": 4, "test": 3}
    assert sorted(level for part in parts.values() for level in part) == list(range(20))
    assert parts == {split: grey_levels(folder(root), split) for split in parts}
    assert parts["val"] != grey_levels(folder(root, seed=1), "val")
    assert data.example_batch(4).y.tolist() == [-1] * 4


def test_split_folders_are_kept_and_val_is_held_out_of_train(tmp_path: Path) -> None:
    for split, start in (("train", 0), ("test", 100)):
        for i in range(10):
            write_image(tmp_path / split / "deep" / "er" / f"{i}.png", start + i)
    data = folder(tmp_path)
    parts = {split: grey_levels(data, split) for split in ("train", "val", "test")}
    assert sorted(parts["train"] + parts["val"]) == list(range(10))
    assert len(parts["val"]) == 4
    assert parts["test"] == list(range(100, 110))
    for i in range(5):
        write_image(tmp_path / "val" / f"{i}.png", 200 + i)
    data = folder(tmp_path)
    assert [grey_levels(data, split) for split in ("train", "val")] == [list(range(10)), list(range(200, 205))]


def test_no_test_images_is_told_when_they_are_asked_for(tmp_path: Path) -> None:
    for i in range(10):
        write_image(tmp_path / "train" / f"{i}.png", i)
    data = folder(tmp_path)
    data.train_dataloader()
    with pytest.raises(ValueError) as error:
        data.test_dataloader()
    assert str(error.value) == (
        f"ImageFolder: root (='{tmp_path}') is split and has no folder test. Add it for test images."
    )


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for label, name in enumerate(["ant", "bee", "cow"]):
        for i in range(5):
            write_image(tmp_path / name / "more" / f"{i}.png", 10 * label + i)
    (tmp_path / ".hidden").mkdir()
    data = folder(tmp_path, labels="folders")
    assert data.classes == ["ant", "bee", "cow"]
    assert data.spec.num_classes == 3
    for split in ("train", "val", "test"):
        labels = torch.cat([y for _, y in data.ordered_dataloader(split)])  # type: ignore[arg-type]
        assert labels.tolist() == [level // 10 for level in grey_levels(data, split)]


def test_class_folders_within_split_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for label, name in enumerate(["ant", "bee"]):
            for i in range(3):
                write_image(tmp_path / split / name / f"{i}.png", 10 * label + i)
    data = folder(tmp_path, labels="folders")
    assert data.spec.num_classes == 2
    assert data.source("test").classes().tolist() == [0, 0, 0, 1, 1, 1]
    write_image(tmp_path / "test" / "cow" / "0.png", 1)
    write_image(tmp_path / "test" / "stray.png", 1)
    with pytest.raises(ValueError) as error:
        folder(tmp_path, labels="folders").setup("test")
    assert str(error.value) == (
        "ImageFolder: labels (='folders') needs each image in one of the 2 class folders of training, but "
        f"{tmp_path}/test has also cow, stray.png. Move these, or set data.init_args.labels to null."
    )


def test_broken_and_other_files_are_skipped_with_one_warning(picture_folder: Make) -> None:
    root = Path(picture_folder(12, suffix=".jpg"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / "whole.jpg")
    whole = (root / "whole.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "padded.jpg").write_bytes(whole + b"camera's notes")  # Pillow reads it, so do we
    (root / "whole.jpg").unlink()
    (root / "empty.png").write_bytes(b"")
    (root / "sub").mkdir()
    (root / "sub" / "text.png").write_text("not a picture")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / "whole.png")
    (root / "bits.png").write_bytes(_flip_a_bit((root / "whole.png").read_bytes()))
    (root / "notes.txt").write_text("notes")
    (root / ".hidden").write_text("hidden")
    data = folder(root)
    with pytest.warns(UserWarning, match="skipped") as caught:
        data.setup()
    assert [str(warning.message) for warning in caught] == [
        f"ImageFolder: skipped 5 of 19 files under root (='{root}'): 4 corrupt: bits.png, cut.jpg, empty.png and "
        "1 more; 1 not an image: notes.txt."
    ]
    assert sum(len(data.source(split)) for split in ("train", "val", "test")) == 14  # type: ignore[arg-type, misc]
    with pytest.raises(ValueError) as error:
        folder(root, on_error="raise").setup("fit")
    assert str(error.value) == (
        f"ImageFolder: on_error (='raise') allows only complete images, but 5 of 19 files under root (='{root}'): "
        "4 corrupt: bits.png, cut.jpg, empty.png and 1 more; 1 not an image: notes.txt. "
        "Remove them, or set data.init_args.on_error to 'skip'."
    )


def _flip_a_bit(png: bytes) -> bytes:
    middle = len(png) // 2
    return png[:middle] + bytes([png[middle] ^ 1]) + png[middle + 1 :]


def test_a_clean_folder_gives_no_warning(picture_folder: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder(picture_folder(10), on_error="raise").setup()


def test_a_file_that_breaks_later_is_named(picture_folder: Make) -> None:
    root = picture_folder(10)
    data = folder(root, in_memory_mb=0, num_workers=0)
    data.setup("fit")
    for path in Path(root).iterdir():
        path.write_bytes(b"gone")
    with pytest.raises(ValueError, match=r"photos/\d+\.png: not a complete image \(.*\)\. Delete or replace it\."):
        data.example_batch(1)


def test_random_crops_cover_the_image_and_change_with_the_epoch(tmp_path: Path) -> None:
    for i in range(4):
        write_gradient(tmp_path / f"{i}.png")
    data = folder(
        tmp_path, crop="random", crops_per_image=50, size=16, num_val=1, num_test=1, batch_size=100, num_workers=0
    )
    loader = data.train_dataloader()
    assert isinstance(loader, WorkerLoader)
    assert len(data.source("train")) == 2 * 50

    def corners(x: Tensor) -> Tensor:
        return levels(x)[:, :2, 0, 0].long()

    first, second = (corners(next(iter(loader)).x) for _ in range(2))
    for epoch in (first, second):
        left, top = epoch.unbind(1)
        assert left.min() >= 0
        assert left.max() <= 48
        assert top.max() <= 32
        assert abs(left.float().mean() - 24) < 4 * 14.1 / 10  # uniform on 0..48
        assert abs(top.float().mean() - 16) < 4 * 9.5 / 10
        assert len(epoch.unique(dim=0)) > 80
    assert not torch.equal(first.sort(0).values, second.sort(0).values)
    ordered = [torch.cat([x for x, _ in data.ordered_dataloader("train")]) for _ in range(2)]
    assert torch.equal(*ordered)
    assert corners(data.example_batch(1).x).tolist() == [[24, 16]]  # evaluation looks at the centre


def test_in_memory_and_by_workers_are_the_same(picture_folder: Make) -> None:
    root = picture_folder(20)
    memory = folder(root, dequantize=True, random_flip=True)
    workers = folder(root, dequantize=True, random_flip=True, in_memory_mb=0, num_workers=2)
    assert isinstance(memory.source("train"), Tensors)
    assert isinstance(workers.source("train"), Pictures)
    for loaders in (
        (memory.train_dataloader(), workers.train_dataloader()),
        (memory.val_dataloader(), workers.val_dataloader()),
    ):
        for _ in range(2):
            for a, b in zip(*loaders, strict=True):
                assert torch.equal(a.x, b.x)
                assert torch.equal(a.y, b.y)


def test_many_images_are_decoded_by_workers_in_order(picture_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_vae.data.pictures._CHUNK", 2)
    data = folder(picture_folder(40), num_workers=2)
    parts = [grey_levels(data, split) for split in ("train", "val", "test")]
    assert [part == sorted(part) for part in parts] == [True] * 3
    assert sorted(level for part in parts for level in part) == list(range(40))


def test_grey_images_are_read_upright_from_any_mode(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 200  # bright above
    picture = Image.fromarray(pixels)
    for i, mode in enumerate(["RGB", "L", "RGBA", "P", "LA"]):
        picture.convert(mode).save(tmp_path / f"{i}.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # lies upside down
    picture.rotate(180).save(tmp_path / "5.jpg", quality=100, exif=exif)
    for channels in (1, 3):
        data = folder(tmp_path, channels=channels, num_val=1, num_test=0)
        assert data.spec.channels == channels
        for split in ("train", "val"):
            u = levels(torch.cat([x for x, _ in data.ordered_dataloader(split)]))  # type: ignore[arg-type]
            assert u.shape[1] == channels
            assert (u[:, :, :3] > 190).all()
            assert (u[:, :, 5:] < 10).all()


def test_a_missing_folder_is_told() -> None:
    data = folder("photos")
    for read in (data.prepare_data, lambda: data.spec, lambda: data.setup("fit")):
        if data.labels is None and read is not data.prepare_data:
            data.labels = "folders"
        with pytest.raises(FileNotFoundError) as error:
            read()
        assert str(error.value) == (
            "ImageFolder: root (='photos') is not a folder. Give an existing folder of images: data.init_args.root."
        )


def test_a_folder_without_class_folders_is_told(picture_folder: Make) -> None:
    root = picture_folder(10)
    with pytest.raises(ValueError) as error:
        _ = folder(root, labels="folders").spec
    assert str(error.value) == (
        f"ImageFolder: labels (='folders') needs a folder for each class in {root}, which has none. "
        "Set data.init_args.labels to null."
    )


def test_too_few_images_are_told(picture_folder: Make) -> None:
    root = picture_folder(7)
    with pytest.raises(ValueError) as error:
        folder(root).setup("fit")
    assert str(error.value) == (
        "ImageFolder: num_val (=4) + num_test (=3) must be less than the number of images to train on (=7). "
        "Lower data.init_args.num_val."
    )


def test_argument_errors() -> None:
    with pytest.raises(ValueError) as error:
        folder("x", crop="left", channels=2, labels="names", on_error="hide")
    assert str(error.value).splitlines() == [
        "ImageFolder: crop (='left') must be one of center, random, none.",
        "ImageFolder: channels (=2) must be one of 1, 3.",
        "ImageFolder: labels (='names') must be one of folders, null.",
        "ImageFolder: on_error (='hide') must be one of skip, raise.",
    ]
    with pytest.raises(ValueError) as error:
        folder(
            "x",
            resize=4,
            crops_per_image=3,
            background="whitish",
            value_range=[1.0, 1.0],
        )
    assert str(error.value).splitlines() == [
        "ImageFolder: resize (=4) must be null, or at least size (=8) with a crop. Change data.init_args.resize.",
        "ImageFolder: crops_per_image (=3) must be 1 if crop (='center') is not 'random'. "
        "Change data.init_args.crops_per_image.",
        "ImageFolder: background (='whitish') must be a colour such as white, black or '#808080'. "
        "Change data.init_args.background.",
        "ImageFolder: value_range (=[1.0, 1.0]) must be null or [low, high], two numbers with low < high. "
        "Change data.init_args.value_range.",
    ]


def test_a_range_that_is_missing_names_the_file_the_mode_and_the_option(picture_folder: Make) -> None:
    root = picture_folder(10)
    floats = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(floats).save(f"{root}/depth.tif")
    with pytest.raises(ValueError) as error:
        folder(root).setup("fit")
    assert str(error.value) == (
        f"ImageFolder: {root}/depth.tif contains floats (Pillow's mode F), but their range is unknown. Set"
        " data.init_args.value_range to the values of black and white, such as [0.0, 1.0]."
    )
    data = folder(root, value_range=[0.0, 1.0], channels=1, num_val=1, num_test=0, batch_size=10)
    data.setup("fit")
    images = torch.cat([data.source(split).images for split in ("train", "val")])  # type: ignore[attr-defined, arg-type]
    ramp = next(u for u in images if u.float().std() > 0)
    assert ramp.flatten().tolist() == np.rint(255 * floats.flatten()).tolist()


@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_a_share_is_held_out_by_default(n: int, picture_folder: Make) -> None:
    data = ImageFolder(picture_folder(n), size=8)
    data.setup()
    sizes = {split: len(data.source(split)) for split in ("train", "val", "test")}  # type: ignore[arg-type]
    held = {3: 1, 5: 1, 10: 1, 30: 3}[n]
    assert sizes == {"train": n - 2 * held, "val": held, "test": held}


def test_two_images_are_too_few(picture_folder: Make) -> None:
    with pytest.raises(ValueError, match=r"num_val \(=1\) \+ num_test \(=1\) must be less than .* \(=2\)"):
        ImageFolder(picture_folder(2), size=8).setup("fit")
