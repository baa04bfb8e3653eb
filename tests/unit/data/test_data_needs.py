"""What data modules need on disk, and how they know that it is whole."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from data_helpers import write_cifar10, write_image
from torchvision import datasets

from lit_vae.data import CIFAR10, CelebA, Codes, ImageFolder


def problems_of(data: Any) -> list[str | None]:
    return [need.problem() for need in data.needs()]


def test_cifar10_has_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar10(tmp_path, monkeypatch)
    data = CIFAR10(str(root), num_val=20)
    assert problems_of(data) == [None]
    file = root / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes() + b"\0")
    (problem,) = problems_of(CIFAR10(str(root), num_val=20))
    assert problem is not None
    assert "do not have the checksums of the data set" in problem


def test_celeba_has_checksums_of_its_lists_and_all_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in range(1, 4)]
    images = [write_image(folder / "img_align_celeba" / name, 5, 178, 218) for name in names]
    partition = "".join(f"{name} {split}\n" for split, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(partition)
    published = [("", hashlib.md5(partition.encode()).hexdigest(), "list_eval_partition.txt")]
    monkeypatch.setattr(datasets.CelebA, "file_list", published)
    (need,) = CelebA(str(tmp_path)).needs()
    assert need.problem() is None
    assert need.measure().size == len(partition) + sum(path.stat().st_size for path in images)
    whole = need.measure()
    images[1].write_bytes(images[1].read_bytes()[:-1])
    assert need.measure() != whole
    images[1].unlink()
    assert "1 images are missing, such as" in str(need.problem())
    (folder / "list_eval_partition.txt").write_text(partition.replace("3.jpg 2", "3.jpg 1"))
    assert "list_eval_partition.txt does not have the checksum" in str(need.problem())


def test_a_folder_of_images_holds_some(tmp_path: Path) -> None:
    (need,) = ImageFolder(str(tmp_path / "photos")).needs()
    assert "is not a folder. Give an existing folder of images" in str(need.problem())
    assert need.provides is None
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("none yet")
    assert "contains no image. Add some" in str(need.problem())
    image = write_image(tmp_path / "photos" / "deep" / "a.png", 3)
    assert need.problem() is None
    assert need.measure().size == image.stat().st_size


def test_codes_need_the_checkpoint_that_made_them(tmp_path: Path) -> None:
    (problem,) = problems_of(Codes(str(tmp_path / "codes")))
    assert "Write it with: lit-vae encode RUN --out DIR." in str(problem)
    # `tests/integration/test_prepared.py` has real ones
