"""Real images, from the folder that the environment variable LIT_VAE_DATA names."""

import os
import tarfile
from pathlib import Path

import pytest
import torch
from data_helpers import levels
from torchvision import datasets

from lit_vae.data import MNIST, ImageFolder
from lit_vae.data.loader import Tensors

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.usefixtures("real_data"),  # skips where there is none
]


def root() -> Path:
    return Path(os.environ["LIT_VAE_DATA"])


def test_mnist_is_whole_and_as_torchvision_reads_it() -> None:
    data = MNIST(str(root()), download=False)
    data.prepare_data()
    train, val, test = (data.source(split) for split in ("train", "val", "test"))  # type: ignore[arg-type]
    assert (len(train), len(val), len(test)) == (55_000, 5_000, 10_000)
    theirs = datasets.MNIST(str(root()))
    assert isinstance(train, Tensors)
    assert torch.equal(train.images[:, 0], theirs.data[train.ids])
    assert torch.equal(train.labels, theirs.targets[train.ids])
    assert data.source("test").classes()[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.images.float().mean().div(255) == pytest.approx(0.1307, abs=1e-3)


def test_dynamic_binarization_keeps_the_mean_of_mnist() -> None:
    data = MNIST(str(root()), binarization="dynamic", download=False)
    ones = torch.cat([x for x, _ in data.test_dataloader()]).add(1).div(2)
    source = data.source("test")
    assert isinstance(source, Tensors)
    p = source.images.double() / 255
    standard_error = (p * (1 - p)).sum().sqrt() / p.numel()
    assert abs(ones.double().mean() - p.mean()) < 3 * standard_error


def test_a_folder_of_cifar10_images(tmp_path: Path) -> None:
    with tarfile.open(root() / "cifar10-jpeg.tar") as tar:
        for member in tar:  # the first classes; reading the whole tar takes long
            if member.isfile() and int(Path(member.name).stem) < 30:
                tar.extract(member, tmp_path, filter="data")
            if member.name.startswith("train/bird"):
                break
    data = ImageFolder(str(tmp_path), size=32, labels="folders", num_val=10, on_error="raise", batch_size=20)
    assert data.classes[:2] == ["airplane", "automobile"]
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == (20, 3, 32, 32)
    assert x.std() > 0.2
    assert set(y.tolist()) <= set(range(data.spec.num_classes))


def test_crops_of_photographs() -> None:
    data = ImageFolder(str(root() / "bsds500"), crop="random", crops_per_image=2, on_error="raise", num_workers=0)
    assert [len(data.source(split)) for split in ("train", "val", "test")] == [400, 100, 200]  # type: ignore[arg-type]
    x = next(iter(data.train_dataloader())).x
    assert x.shape == (64, 3, 64, 64)
    assert x.std() > 0.3
    smooth = (x[..., 1:] - x[..., :-1]).abs().mean() / (x - x.mean()).abs().mean()
    assert smooth < 0.5  # neighbours are alike: these are photographs
    u = levels(x)
    assert len(u.flatten(1).unique(dim=0)) == 64
