from pathlib import Path

import pytest
import torch
from data_helpers import levels, write_cifar10

from lit_vae.data import CIFAR10
from lit_vae.data.loader import Tensors
from lit_vae.images import ImageSpec


def test_splits_planes_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10(str(write_cifar10(tmp_path, monkeypatch)), num_val=30)
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert data.spec == ImageSpec(3, 32, 32, 10, "uint8", names)
    sources = [data.source(split) for split in ("train", "val", "test")]  # type: ignore[arg-type]
    train, val, test = (source for source in sources if isinstance(source, Tensors))
    assert (len(train), len(val), len(test)) == (70, 30, 20)
    assert torch.equal(torch.cat([train.ids, val.ids]).sort().values, torch.arange(100))
    assert not set(test.ids.tolist()) & set(train.ids.tolist() + val.ids.tolist())
    for source in (train, val, test):
        assert torch.equal(source.labels, source.ids % (1 << 32) % 20 % 10)
        assert (source.images[:, 0] == 250).all()
        assert not (source.images[:, 1] == 250).all()
    u = levels(data.example_batch(3, "test").x)
    assert u[:, 0].unique().tolist() == [250]


def test_options_reach_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(write_cifar10(tmp_path, monkeypatch))
    data = CIFAR10(root, num_val=30, dequantize=True, random_flip=True, batch_size=70)
    assert data.spec.values == "dequantized"
    x = next(iter(data.train_dataloader())).x
    back = x.double().add(1).mul(128).floor().to(torch.uint8)
    stored = data.source("train")
    assert isinstance(stored, Tensors)
    kept = (back[:, None] == stored.images[None]).flatten(2).all(2).any(1)
    mirrored = (back.flip(-1)[:, None] == stored.images[None]).flatten(2).all(2).any(1)
    assert (kept ^ mirrored).all()
    assert kept.any()
    assert mirrored.any()


def test_damaged_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cifar10(tmp_path, monkeypatch)
    path = root / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError) as error:
        CIFAR10(str(root), num_val=30).setup("fit")
    assert str(error.value) == (
        f"CIFAR10: the files in {path.parent} do not have the checksums of the data set. "
        "Delete the folder and fetch it again (lit-vae prepare)."
    )


def test_argument_errors() -> None:
    with pytest.raises(ValueError) as error:
        CIFAR10(batch_size=-2, num_val=0)
    assert str(error.value).splitlines() == [
        "CIFAR10: batch_size (=-2) must be at least 1.",
        "CIFAR10: num_val (=0) must be at least 1.",
    ]
