import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import levels, write_idx, write_mnist

from lit_vae.data import MNIST, FashionMNIST, mnist
from lit_vae.data.loader import Tensors
from lit_vae.images import ImageSpec


def tensors(data: MNIST, split: str) -> Tensors:
    source = data.source(split)  # type: ignore[arg-type]
    assert isinstance(source, Tensors)
    return source


def number(images: torch.Tensor) -> torch.Tensor:
    """Read off which image of its file it is."""
    return images[:, 0, 0, 0].long() * 256 + images[:, 0, 0, 1]


def test_splits_are_disjoint_and_seed_stable(mnist_root: str) -> None:
    data = MNIST(mnist_root, num_val=30)
    train, val, test = (tensors(data, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (170, 30, 40)
    both = torch.cat([number(train.images), number(val.images)])
    assert torch.equal(both.sort().values, torch.arange(200))
    assert torch.equal(number(test.images), torch.arange(40))  # in the order of the file
    assert len(torch.cat([train.ids, val.ids, test.ids]).unique()) == 240  # no two images draw the same noise
    again, other = MNIST(mnist_root, num_val=30), MNIST(mnist_root, num_val=30, seed=1)
    assert torch.equal(tensors(again, "val").images, val.images)
    assert not torch.equal(tensors(other, "val").ids, val.ids)


def test_images_and_labels_are_those_of_the_file(mnist_root: str) -> None:
    data = MNIST(mnist_root, num_val=30)
    train = tensors(data, "train")
    assert torch.equal(train.labels, number(train.images) % 10)
    content = (Path(mnist_root) / "MNIST/raw/train-images-idx3-ubyte").read_bytes()[16:]
    file = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(200, 1, 28, 28).copy())
    assert torch.equal(train.images, file[train.ids])
    assert torch.equal(levels(data.example_batch(170, "train").x), train.images)


def test_pad_puts_zeros_on_each_side(mnist_root: str) -> None:
    data, plain = MNIST(mnist_root, num_val=30, pad=2), MNIST(mnist_root, num_val=30)
    assert data.spec == ImageSpec(1, 32, 32, 10, "uint8")
    x = data.example_batch(4).x
    assert torch.equal(x[:, :, 2:30, 2:30], plain.example_batch(4).x)
    assert (x == -1).sum() - (x[:, :, 2:30, 2:30] == -1).sum() == (32**2 - 28**2) * 4


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold"])
def test_binarized_values(mnist_root: str, binarization: str) -> None:
    data = MNIST(mnist_root, num_val=30, binarization=binarization, batch_size=85)  # type: ignore[arg-type]
    assert data.spec.values == "binary"
    loader = data.train_dataloader()
    epochs = [dict(zip(*_by_image(loader), strict=True)) for _ in range(2)]
    assert {value for x in epochs[0].values() for value in x.unique().tolist()} == {-1.0, 1.0}
    assert all(torch.equal(epochs[0][i], epochs[1][i]) for i in epochs[0]) == (binarization != "dynamic")


def _by_image(loader: object) -> tuple[list[int], list[torch.Tensor]]:
    """Label the batches of an epoch by image: the loader's labels are made the image's number."""
    source = loader.source  # type: ignore[attr-defined]
    loader.source = Tensors(source.images, torch.arange(len(source)), source.ids)  # type: ignore[attr-defined]
    x, y = zip(*loader, strict=True)  # type: ignore[call-overload]
    return torch.cat(y).tolist(), list(torch.cat(x))


def test_a_static_draw_does_not_depend_on_the_split(mnist_root: str) -> None:
    def drawn(num_val: int) -> dict[int, torch.Tensor]:
        data = MNIST(mnist_root, num_val=num_val, binarization="static", batch_size=10)
        ids = torch.cat([tensors(data, "train").ids, tensors(data, "val").ids]).tolist()
        x = torch.cat([x for split in ("train", "val") for x, _ in data.ordered_dataloader(split)])  # type: ignore[arg-type]
        return dict(zip(ids, x, strict=True))

    few, many = drawn(20), drawn(100)
    assert all(torch.equal(few[i], many[i]) for i in range(200))


def test_dequantized_values(mnist_root: str) -> None:
    data = MNIST(mnist_root, num_val=30, dequantize=True)
    assert data.spec.values == "dequantized"
    x = data.example_batch(30).x
    assert torch.equal(x.double().add(1).mul(128).floor().to(torch.uint8), tensors(data, "val").images)


def test_larochelle_reads_its_own_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bits = {name: rng.integers(0, 2, (n, 784)) for name, n in (("train", 6), ("valid", 4), ("test", 3))}
    for name, rows in bits.items():
        text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        (tmp_path / f"binarized_mnist_{name}.amat").write_text(text)
    data = MNIST(str(tmp_path), binarization="larochelle", batch_size=3)
    data.prepare_data()
    assert data.spec == ImageSpec(1, 28, 28, 0, "binary")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        x, y = data.example_batch(len(bits[name]), split)  # type: ignore[arg-type]
        assert torch.equal(x.flatten(1), torch.from_numpy(bits[name] * 2.0 - 1).float())
        assert y.tolist() == [-1] * len(y)
    (tmp_path / "binarized_mnist_train.amat").write_text("0 1 2")
    with pytest.raises(ValueError, match=r"binarized_mnist_train\.amat: not lines of 784 digits 0 or 1\. Delete"):
        MNIST(str(tmp_path), binarization="larochelle").setup("fit")


def test_larochelle_names_the_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        MNIST(str(tmp_path), binarization="larochelle").prepare_data()
    assert str(error.value) == (
        f"MNIST: the download into root (='{tmp_path}') failed: the binarised files are not downloaded. Put "
        "binarized_mnist_train.amat, binarized_mnist_valid.amat, binarized_mnist_test.amat there "
        "(data.init_args.root)."
    )


def test_fashion_mnist_has_a_folder_of_its_own_and_no_larochelle(tmp_path: Path) -> None:
    write_mnist(tmp_path, name="FashionMNIST")
    data = FashionMNIST(str(tmp_path), num_val=30)
    data.prepare_data()
    assert len(data.source("train")) == 170
    with pytest.raises(ValueError) as error:
        FashionMNIST(binarization="larochelle")
    assert str(error.value) == (
        "FashionMNIST: binarization (='larochelle') must be dynamic, static, threshold or null. "
        "Change data.init_args.binarization."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-1], r"train-images-idx3-ubyte: 156815 bytes, expected 156816 for \(200, 28, 28\); the file is "),
        (
            lambda b: b + b"\0",
            r"156817 bytes, expected 156816 .* truncated or damaged\. Delete it and fetch it again\.",
        ),
        (lambda b: b"\x1f\x8b" + b[2:], r"not an idx file of bytes in 3 dimensions\. Delete it and fetch it again\."),
        (lambda b: b[:10], r"not an idx file of bytes in 3 dimensions"),
        (lambda b: b"", r"not an idx file of bytes in 3 dimensions"),
        (lambda b: b[:15] + b"\x1d" + b[16:], r"contains \(200, 28, 29\), expected \(N, 28, 28\)\. Fetch it again\."),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, change: object, message: str) -> None:
    path = write_mnist(tmp_path) / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        MNIST(str(tmp_path), num_val=20).setup("fit")


@pytest.mark.parametrize("labels", [np.arange(199) % 10, np.arange(200) % 11])
def test_labels_that_do_not_fit_are_told(tmp_path: Path, labels: np.ndarray) -> None:
    write_idx(write_mnist(tmp_path) / "MNIST/raw/train-labels-idx1-ubyte", labels)
    with pytest.raises(ValueError, match=r"labels up to (9|10) do not belong to 200 images of 10 classes\. Delete"):
        MNIST(str(tmp_path), num_val=20).setup("fit")


def test_argument_errors(mnist_root: str) -> None:
    with pytest.raises(ValueError) as error:
        MNIST(num_val=0, pad=-1)
    assert str(error.value).splitlines() == [
        "MNIST: num_val (=0) must be at least 1.",
        "MNIST: pad (=-1) must be at least 0.",
    ]
    with pytest.raises(ValueError) as error:
        MNIST(dequantize=True, binarization="static")
    assert str(error.value).splitlines() == [
        "MNIST: dequantize (=True) must be false if binarization (='static') is set. Change data.init_args.dequantize.",
    ]
    with pytest.raises(ValueError) as error:
        MNIST(mnist_root, num_val=200).setup("fit")
    assert str(error.value) == (
        "MNIST: num_val (=200) must be less than the number of images in the training file (=200). "
        "Lower data.init_args.num_val."
    )


def test_mnist_of_the_published_size_has_the_published_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, num_train=60, num_test=20)
    monkeypatch.setattr(mnist, "_PUBLISHED_COUNT", {"train": 60, "test": 20})
    files = {path.name: path for path in (tmp_path / "MNIST" / "raw").iterdir()}
    known = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert known.keys() == MNIST.checksums.keys()
    monkeypatch.setattr(MNIST, "checksums", known)
    assert MNIST(str(tmp_path), num_val=5).damage() is None
    for name, path in files.items():
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        said = f"{path}: its SHA-256 is not that of the data set. Delete it and fetch it again."
        assert MNIST(str(tmp_path), num_val=5).damage() == said, name
        with pytest.raises(ValueError, match="its SHA-256 is not that of the data set"):
            MNIST(str(tmp_path), num_val=5).setup("fit" if name.startswith("train") else "test")
        path.write_bytes(whole)
