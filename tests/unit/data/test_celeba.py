from pathlib import Path

import pytest
import torch
from data_helpers import levels, write_gradient

from lit_vae.data import CelebA
from lit_vae.data.loader import Tensors
from lit_vae.images import ImageSpec


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Eight images of the true size and layout: red is the column, green the row."""
    folder = tmp_path / "celeba"
    names = [f"{i:06d}.jpg" for i in range(1, 9)]
    for name in names:
        write_gradient(folder / "img_align_celeba" / name, 178, 218)
    partition = "".join(f"{name} {part}\n" for name, part in zip(names, [0, 0, 0, 0, 1, 1, 2, 2], strict=True))
    (folder / "list_eval_partition.txt").write_text(partition)
    rows = "".join(f"{name} {1 if i % 2 else -1:2d} -1\n" for i, name in enumerate(names))
    (folder / "list_attr_celeba.txt").write_text(f"8\nSmiling Young\n{rows}")
    return str(tmp_path)


def test_the_official_partition_is_the_split(root: str) -> None:
    data = CelebA(root, batch_size=2)
    data.prepare_data()
    assert data.spec == ImageSpec(3, 64, 64, 0, "uint8")
    assert [len(data.source(split)) for split in ("train", "val", "test")] == [4, 2, 2]  # type: ignore[arg-type]
    assert all(isinstance(data.source(split), Tensors) for split in ("train", "val", "test"))  # type: ignore[arg-type]
    assert data.example_batch(2, "test").y.tolist() == [-1, -1]


@pytest.mark.parametrize("crop", [140, 148])
def test_the_crop_is_central(root: str, crop: int) -> None:
    u = levels(CelebA(root, size=crop, crop=crop).example_batch(1).x)[0].float()
    left, top = (178 - crop) // 2, (218 - crop) // 2
    columns, rows = u[0].mean(0), u[1].mean(1)
    torch.testing.assert_close(columns, torch.arange(left, left + crop).float(), atol=2, rtol=0)  # JPEG
    torch.testing.assert_close(rows, torch.arange(top, top + crop).float(), atol=2, rtol=0)


def test_the_crop_is_resized(root: str) -> None:
    u = levels(CelebA(root, size=35).example_batch(1).x)[0].float()
    centres = 19 + 4 * torch.arange(35) + 1.5
    torch.testing.assert_close(u[0].mean(0)[1:-1], centres[1:-1], atol=2, rtol=0)


def test_an_attribute_makes_labels(root: str) -> None:
    data = CelebA(root, attribute="Smiling")
    assert data.spec.num_classes == 2
    assert data.example_batch(4, "train").y.tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError) as error:
        CelebA(root, attribute="Smirking").setup("fit")
    assert str(error.value) == (
        "CelebA: attribute (='Smirking') must be null or one of Smiling, Young. Change data.init_args.attribute."
    )


def test_workers_make_the_same_images(root: str) -> None:
    memory, workers = CelebA(root, size=16), CelebA(root, size=16, in_memory_mb=0, num_workers=1)
    assert torch.equal(*(next(iter(data.val_dataloader())).x for data in (memory, workers)))


def test_errors(root: str) -> None:
    with pytest.raises(ValueError) as error:
        CelebA(root, size=0, crop=179, num_workers=-1)
    assert str(error.value).splitlines() == [
        "CelebA: size (=0) must be at least 1.",
        "CelebA: crop (=179) must be at least 1 and at most 178.",
        "CelebA: num_workers (=-1) must be at least 0.",
    ]
    partition = Path(root) / "celeba" / "list_eval_partition.txt"
    partition.write_text("000001.jpg 0\n000002.jpg 3\n")
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt: '000002\.jpg 3' is not a file name and 0, 1 or 2"):
        CelebA(root).setup("fit")
    partition.write_text("000001.jpg 0\n")
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt: no images for val, test\. Fetch the file again\."):
        CelebA(root).setup("fit")
