"""How many images a second come out of memory, against files of the usual kind: PIL images, ToTensor, workers."""

import itertools
from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.data.loader import TensorLoader, Tensors
from lit_vae.data.orders import TrainOrder
from lit_vae.data.preprocess import pixel_preprocess

BATCH_SIZE = 64
IN_MEMORY = "one uint8 tensor, no workers"


class PILImages(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: an array of images, each made a PIL image, transformed, and collated by the loader."""

    def __init__(self, source: Tensors) -> None:
        self.arrays = source.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = source.labels.tolist()
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


class Feed:
    """Goes through a loader, epoch after epoch, and says how long one image takes."""

    def __init__(self, loader: Iterable[tuple[Tensor, Tensor]], num_batches: int, device: torch.device) -> None:
        self.loader, self.num_batches, self.device = loader, num_batches, device

    def seconds_per_image(self) -> float:
        """From the first batch on: workers are started before."""
        batches = iter(self.loader)
        self._take(next(batches))
        start = now(self.device)
        images = sum(self._take(batch) for batch in itertools.islice(batches, self.num_batches))
        return (now(self.device) - start) / images

    def _take(self, batch: tuple[Tensor, Tensor]) -> int:
        x, y = (t.to(self.device, non_blocking=True) for t in batch)
        assert len(x) == len(y)
        return len(x)


def run(device: torch.device, quick: bool) -> list[Row]:
    """Images per second of each way, and how many times as many come out of memory."""
    num_images, num_batches = (1_024, 8) if quick else (50_000, 150)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    source = Tensors(images, torch.arange(num_images) % 10, torch.arange(num_images))
    order = TrainOrder(num_images, BATCH_SIZE, seed=0)
    in_memory = TensorLoader(source.to(device), order, pixel_preprocess(), seed=0, device=device)
    feeds = {IN_MEMORY: Feed(in_memory, len(order), device)}
    for workers in (0, 2):
        loader = DataLoader(
            PILImages(source),
            BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )
        feeds[f"PIL + ToTensor, {workers or 'no'} workers"] = Feed(loader, num_batches, device)
    seconds = interleave({name: feed.seconds_per_image for name, feed in feeds.items()}, 2 if quick else 7)
    rows = []
    for name, values in seconds.items():
        speed = 1.0 / spread(values).median
        if name == IN_MEMORY:
            rows.append(Row("feed, 32 x 32 x 3", name, speed, "images/s"))
            continue
        slower = ratio(seconds, name, IN_MEMORY)
        rows.append(Row("feed, 32 x 32 x 3", name, speed, "images/s", f"seconds of {IN_MEMORY}", slower, 10.0, ">="))
    return rows
