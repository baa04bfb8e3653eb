"""Folders as people have them: how splits are called, links that go round in circles, what is no file."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest
from data_helpers import levels, write_image

from lit_vae.data import ImageFolder
from lit_vae.data.folders import Folder, Walk, class_order, split_folders


def fill(root: Path, *folders: str, each: int = 2) -> Path:
    for number, name in enumerate(folders):
        for i in range(each):
            write_image(root / name / f"{i}.png", 10 * number + i)
    return root


def read(root: Path, **options: object) -> dict[str, list[int]]:
    """The level of each image, by split."""
    data = ImageFolder(str(root), size=8, num_workers=0, **options)  # type: ignore[arg-type]
    data.setup()
    batches = {
        split: data.source(split).read(data.source(split).classes().argsort()) for split in ("train", "val", "test")
    }  # type: ignore[arg-type]
    return {split: sorted(u[:, 0, 0, 0].tolist()) for split, (u, _, _) in batches.items()}


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("val", ["val", "Valid", "validation", "DEV", "eval", "Evaluation"])
def test_splits_have_the_usual_names_in_any_case(train: str, val: str, tmp_path: Path) -> None:
    for test in ("test", "Testing"):
        (tmp_path / test).mkdir()
        found = split_folders(fill(tmp_path, train, val))
        assert {split: path.name for split, path in found.items()} == {"train": train, "val": val, "test": test}
        (tmp_path / test).rmdir()


def test_the_splits_of_other_names_are_kept_apart(tmp_path: Path) -> None:
    fill(tmp_path, "Training", "Validation", "Testing", each=5)
    assert read(tmp_path) == {"train": [0, 1, 2, 3, 4], "val": [10, 11, 12, 13, 14], "test": [20, 21, 22, 23, 24]}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "train2",
            "test_old",
            "trian",
            "training_data",
            "training set",
            "train-images",
            "trainA",
            "val2017",
            "TRAIN_OLD",
        ),
        *("TestSet", "testset", "trainval", "tests", "tset", "vaildation", "Copy of test", "train (1)", "val.bak"),
    ],
)
@pytest.mark.parametrize("beside", [["train", "test", "val"], []])
def test_what_looks_like_a_split_and_is_none_is_an_error_that_names_it(
    name: str, beside: list[str], tmp_path: Path
) -> None:
    fill(tmp_path, name, *beside)
    with pytest.raises(ValueError) as error:
        ImageFolder(str(tmp_path), labels="folders").prepare_data()
    assert str(error.value) == (
        f"ImageFolder: root (='{tmp_path}') contains {name}, which looks like a split, but the folders of"
        " splits are called train or training; val, valid, validation, dev, eval or evaluation; test or testing, in"
        " upper or lower case. Rename the folder, whether it is a split or not, or move it out of root."
    )
    assert Folder(tmp_path, "ImageFolder").problem() == str(error.value).removeprefix("ImageFolder: ")


@pytest.mark.parametrize("names", [["DIV2K_train_HR", "DIV2K_valid_HR"], ["faces_test", "faces_train"]])
def test_names_of_two_splits_beside_each_other_look_like_splits(names: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"contains {', '.join(names)}, which look like a split, but"):
        split_folders(fill(tmp_path, *names))


def test_names_of_classes_do_not_look_like_splits(tmp_path: Path) -> None:
    names = [
        "brain",
        "contest",
        "device",
        "drain",
        "latest",
        "nest",
        "rain",
        "steam_train",
        "text",
        "trail",
        "valley",
        "veal",
    ]
    assert split_folders(fill(tmp_path, *names)) == {}
    assert ImageFolder(str(tmp_path), labels="folders").classes == names


@pytest.mark.parametrize("pair", [("val", "valid"), ("Train", "train"), ("test", "testing")])
def test_two_names_of_one_split_are_an_error(pair: tuple[str, str], tmp_path: Path) -> None:
    fill(tmp_path, *pair)
    with pytest.raises(ValueError, match=f"contains both {pair[0]} and {pair[1]}, two names of the same split"):
        split_folders(tmp_path)


def test_a_second_name_by_a_link_is_one_split(tmp_path: Path) -> None:
    fill(tmp_path, "train2017", "test")
    (tmp_path / "train").symlink_to("train2017")
    assert {split: path.name for split, path in split_folders(tmp_path).items()} == {"train": "train", "test": "test"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["test", "val"], r"contains test, val, but no folder train or training"),
        (
            ["bus", "car", "train"],
            r"contains train, the name of a split, and bus, car, which are not\. If train is a class",
        ),
        (
            ["images/train", "images/val"],
            r"images contains train and val: the images of these splits would be mixed.*data\.init_args\.root",
        ),
        (["cat/train", "cat/test", "dog/train", "dog/test"], r"cat contains test and train: the images"),
    ],
)
@pytest.mark.parametrize("labels", [None, "folders"])
def test_splits_are_never_pooled_nor_classes(names: list[str], said: str, labels: str | None, tmp_path: Path) -> None:
    fill(tmp_path, *names)
    with pytest.raises(ValueError, match=said):
        ImageFolder(str(tmp_path), labels=labels).setup("fit")  # type: ignore[arg-type]


def test_what_is_in_no_split_is_named(tmp_path: Path) -> None:
    fill(tmp_path, "train", "test", "more", each=10)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").touch()
    write_image(tmp_path / "cover.png", 99)
    with pytest.warns(UserWarning, match=r"2 in no split: cover\.png, more\."):
        assert all(99 not in part for part in read(tmp_path).values())


def test_labels_of_numbers_are_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    fill(tmp_path, "0", "1", "10", "2", each=4)
    data = ImageFolder(str(tmp_path), size=8, labels="folders")
    assert data.classes == ["0", "1", "2", "10"]
    assert data.spec.class_names == ("0", "1", "2", "10")
    for split in ("train", "val", "test"):
        for x, y in data.ordered_dataloader(split):  # type: ignore[arg-type]
            for level, label in zip(levels(x)[:, 0, 0, 0].tolist(), y.tolist(), strict=True):
                assert label == {0: 0, 1: 1, 2: 3, 3: 2}[level // 10]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["010", "2", "1"], ["1", "2", "010"]),
        (["10", "9", "a"], ["10", "9", "a"]),
        (["n10", "n9"], ["n10", "n9"]),
    ],
)
def test_class_order(names: list[str], order: list[str]) -> None:
    assert class_order(names) == order


def names_of(paths: Iterable[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def test_links_in_circles_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "test/b", each=30)
    (tmp_path / "train" / "up").symlink_to("..")
    (tmp_path / "train" / "a" / "root").symlink_to(tmp_path)
    (tmp_path / "train" / "a" / "self").symlink_to("self")
    (tmp_path / "train" / "other").symlink_to("../test")
    os.link(tmp_path / "test" / "b" / "0.png", tmp_path / "train" / "again.png")
    (tmp_path / "train" / "nowhere.png").symlink_to("gone.png")
    with pytest.warns(UserWarning, match="ImageFolder") as caught:
        found = read(tmp_path)
    assert sorted(found["train"] + found["val"]) == list(range(30))
    assert found["test"] == list(range(10, 40))
    said = [str(warning.message) for warning in caught]
    assert any("2 a link that leads nowhere: train/nowhere.png, train/a/self" in text for text in said)
    assert any("4 files are other names of a file, which is counted once" in text for text in said)


def test_a_circle_without_splits(tmp_path: Path) -> None:
    fill(tmp_path, "a", each=5)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "z").symlink_to("a")
    walk = Walk(tmp_path)
    assert names_of(walk.files(tmp_path), tmp_path) == [f"a/{i}.png" for i in range(5)]
    assert names_of(walk.linked, tmp_path) == ["a/up", "z"]


def test_what_is_no_file_is_named_and_not_opened(tmp_path: Path) -> None:
    fill(tmp_path, ".", each=5)
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        (tmp_path / "null.png").symlink_to("/dev/null")
        with pytest.warns(UserWarning, match=r"skipped 3 of 8 files .*: 3 not a file: null\.png, pipe\.png, s\.png\."):
            found = read(tmp_path)
        assert Folder(tmp_path, "").problem() is None
    assert sum(map(len, found.values())) == 5


def test_folders_without_permission_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a", "b")
    scandir = os.scandir

    def refuse(folder: Path):  # type: ignore[no-untyped-def]
        if Path(folder).name == "b":
            raise PermissionError("not yours")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    walk = Walk(tmp_path)
    assert len(list(walk.files(tmp_path))) == 2
    assert [(left.path.name, left.kind) for left in walk.left_out] == [("b", "without permission to read")]
