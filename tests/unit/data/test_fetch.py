import subprocess
import sys
from pathlib import Path

import pytest
from data_helpers import served, write_cifar10, write_mnist, write_mnist_archives
from torchvision import datasets

import lit_vae.data.fetch
from lit_vae.data import CIFAR10, MNIST, CelebA, FashionMNIST
from lit_vae.data.fetch import fetch

SLOW_FETCH = """
import sys, time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

spec = spec_from_file_location("files", sys.argv[1])  # without the package around it, which takes long to import
files = module_from_spec(spec)
spec.loader.exec_module(files)
root = Path(sys.argv[2])

def download(folder):
    with open(sys.argv[3], "a") as lines:
        lines.write("download\\n")
    (folder / "set").mkdir()
    for name in ("a", "b"):
        with (folder / "set" / name).open("w") as file:
            for _ in range(20):
                file.write("0123456789")
                file.flush()
                time.sleep(0.01)

def complete():
    there = [file for file in (root / "set" / "a", root / "set" / "b") if file.exists()]
    assert all(file.stat().st_size == 200 for file in there)  # never a part of one
    return len(there) == 2

files.fetch(root, "Set", complete, download, "")
assert complete()
"""


def test_processes_that_race_download_once_and_see_whole_files(tmp_path: Path) -> None:
    arguments = [lit_vae.data.fetch.__file__, str(tmp_path / "data"), str(tmp_path / "log")]
    processes = [subprocess.Popen([sys.executable, "-c", SLOW_FETCH, *arguments]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "download\n"
    assert {path.name for path in (tmp_path / "data").iterdir()} - {".Set.lock"} == {"set"}


def test_a_failed_download_leaves_nothing_and_is_told(tmp_path: Path) -> None:
    def download(folder: Path) -> None:
        (folder / "half").write_text("ha")
        raise RuntimeError("no route to host")

    with pytest.raises(FileNotFoundError) as error:
        fetch(tmp_path, "Set", lambda: False, download, "Put it there.")
    assert str(error.value) == (f"Set: the download into root (='{tmp_path}') failed: no route to host. Put it there.")
    assert {path.name for path in tmp_path.iterdir()} <= {".Set.lock"}


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")

    inodes = []

    def download(folder: Path) -> None:
        (folder / "set").mkdir()
        (folder / "set" / "theirs").write_text("theirs")
        inodes.append((folder / "set" / "theirs").stat().st_ino)

    fetch(tmp_path, "Set", (tmp_path / "set" / "theirs").exists, download, "")
    assert (tmp_path / "set" / "mine").read_text() == "mine"
    assert (tmp_path / "set" / "theirs").read_text() == "theirs"
    assert [(tmp_path / "set" / "theirs").stat().st_ino] == inodes  # renamed, which is atomic, and not copied


def test_complete_data_is_used_offline_and_without_writing(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    MNIST(str(tmp_path), num_val=20).prepare_data()  # a download would fail: these files are not on its mirrors
    assert sorted(tmp_path.rglob("*")) == before


def test_mnist_downloads_through_torchvision_with_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, resources = write_mnist_archives(tmp_path / "mirror")
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    with served(mirror) as url:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [url])
        data = MNIST(str(tmp_path / "data"), num_val=20)
        data.prepare_data()
        assert len(data.source("train")) == 180

        monkeypatch.setattr(datasets.MNIST, "resources", [(name, "0" * 32) for name, _ in resources])
        damaged = MNIST(str(tmp_path / "other"), num_val=20)
        with pytest.raises(FileNotFoundError, match=r"MNIST: the download into root .* failed: .*"):
            damaged.prepare_data()
    assert not (tmp_path / "other" / "MNIST").exists()


def test_download_false_names_folder_and_remedy(tmp_path: Path) -> None:
    root = str(tmp_path / "none")
    for data, remedy in (
        (MNIST(root, download=False), "Put MNIST/raw/train-images-idx3-ubyte, "),
        (FashionMNIST(root, download=False), "Put FashionMNIST/raw/train-images-idx3-ubyte, "),
        (CIFAR10(root, download=False), "Unpack cifar-10-python.tar.gz there (data.init_args.root)."),
        (CelebA(root, download=False), "Get img_align_celeba.zip, list_eval_partition.txt and list_attr_celeba.txt "),
    ):
        name = type(data).__name__
        with pytest.raises(FileNotFoundError) as error:
            data.prepare_data()
        start = f"{name}: root (='{root}') does not contain the data set, and download (=False) forbids downloads. "
        assert str(error.value).startswith(start + remedy)
        assert str(error.value).endswith(" Or set data.init_args.download to true.")
        with pytest.raises(FileNotFoundError) as error:
            data.setup("fit")
        assert str(error.value).startswith(f"{name}: root (='{root}') does not contain the data set. {remedy}")
        assert not (tmp_path / "none").exists()


def test_celeba_tells_where_to_put_the_files_when_google_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("quota exceeded")

    monkeypatch.setattr(datasets.CelebA, "download", refuse)
    with pytest.raises(FileNotFoundError) as error:
        CelebA(str(tmp_path)).prepare_data()
    assert str(error.value) == (
        f"CelebA: the download into root (='{tmp_path}') failed: quota exceeded. Get img_align_celeba.zip, "
        "list_eval_partition.txt and list_attr_celeba.txt from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and "
        f"unpack them to {tmp_path}/celeba/img_align_celeba/*.jpg and {tmp_path}/celeba/list_*.txt "
        "(data.init_args.root)."
    )


def test_cifar10_moves_a_download_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_cifar10(tmp_path / "source", monkeypatch)

    def copy(self: datasets.CIFAR10) -> None:
        folder = Path(self.root) / self.base_folder
        folder.mkdir()
        for path in (source / self.base_folder).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(datasets.CIFAR10, "download", copy)
    data = CIFAR10(str(tmp_path / "data"), num_val=20)
    data.prepare_data()
    assert len(data.source("test")) == 20
