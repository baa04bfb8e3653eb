"""Data sets of the true format and a few images, written by the tests."""

import gzip
import hashlib
import pickle
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from lit_vae.images import Batch


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, num_train: int = 200, num_test: int = 40, name: str = "MNIST") -> Path:
    rng = np.random.default_rng(0)
    for prefix, n in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 256, (n, 28, 28))
        images[:, 0, :2] = np.arange(n)[:, None] // [256, 1] % 256  # which image it is can be read off it
        write_idx(root / name / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(n) % 10)
    return root


def write_mnist_archives(root: Path) -> tuple[Path, list[tuple[str, str]]]:
    """Write MNIST as it lies on a server: the folder, and torchvision's ``resources`` for it."""
    folder = write_mnist(root, name="files") / "files" / "raw"
    resources = []
    for path in sorted(folder.iterdir()):
        packed = path.with_name(path.name + ".gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        resources.append((packed.name, hashlib.md5(packed.read_bytes()).hexdigest()))
    return folder, resources


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class OldPickle:
    """Warns when it is read, as NumPy 2.4 does of the dtypes in CIFAR-10's files."""

    def __reduce__(self) -> tuple:
        return warnings.warn, ("dtype(): align should be passed as boolean", np.exceptions.VisibleDeprecationWarning)


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, per_file: int = 20) -> Path:
    """Write the six files, and let torchvision expect their checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(name: str) -> list[str]:
        images = rng.integers(0, 256, (per_file, 3, 32, 32), dtype=np.uint8)
        images[:, 0] = 250  # red is the first plane
        labels = [i % 10 for i in range(per_file)]
        return [name, write(name, {"data": images.reshape(per_file, -1), "labels": labels, "dtype": OldPickle()})]

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    meta = dict(datasets.CIFAR10.meta, md5=write("batches.meta", {"label_names": list("abcdefghij")}))
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return root


def write_image(path: Path, level: int, width: int = 40, height: int = 30) -> Path:
    """Write a picture of one grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), level, np.uint8)).save(path)
    return path


def write_gradient(path: Path, width: int = 64, height: int = 48) -> Path:
    """Write a picture whose red is the column and whose green is the row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    Image.fromarray(pixels).save(path)
    return path


def digest(batch: Batch) -> str:
    return hashlib.sha256(batch.x.numpy().tobytes() + batch.y.numpy().tobytes()).hexdigest()


def levels(x: torch.Tensor) -> torch.Tensor:
    """Undo ``u / 127.5 - 1``."""
    return x.add(1).mul(127.5).round().to(torch.uint8)
