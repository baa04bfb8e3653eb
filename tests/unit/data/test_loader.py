from collections.abc import Iterator

import pytest
import torch
from data_helpers import digest
from lightning.fabric.utilities.types import _Stateful
from torch.utils.data import DataLoader

from lit_vae.data.loader import TensorLoader, Tensors, WorkerLoader
from lit_vae.data.orders import EvalOrder, TrainOrder
from lit_vae.data.preprocess import Dequantize, DynamicBinarization, Preprocess, RandomFlip
from lit_vae.images import Batch


def images(n: int) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    u = torch.randint(0, 256, (n, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return Tensors(u, torch.arange(n), torch.arange(n) + 1000)


def train_loader(
    n: int = 50, batch_size: int = 8, rank: int = 0, world_size: int = 1, transform: Preprocess | None = None
) -> TensorLoader:
    order = TrainOrder(n, batch_size, seed=3, rank=rank, world_size=world_size)
    return TensorLoader(images(n), order, transform or RandomFlip(DynamicBinarization()), seed=3)


def hashes(loader: TensorLoader, epochs: int = 1) -> list[str]:
    return [digest(batch) for _ in range(epochs) for batch in loader]


def test_an_epoch_holds_each_image_at_most_once_and_drops_the_rest() -> None:
    loader = train_loader(n=50, batch_size=8)
    seen = torch.cat([batch.y for batch in loader])
    assert len(loader) == 6
    assert len(seen) == 48
    assert len(seen.unique()) == 48


def test_epochs_are_shuffled_differently_and_reproducibly() -> None:
    loader = train_loader(n=48)
    first, second = (torch.cat([batch.y for batch in loader]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    assert hashes(train_loader(n=48), epochs=3) == hashes(train_loader(n=48), epochs=3)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_see_together_what_one_of_the_double_batch_sees(world_size: int) -> None:
    n, per_process = 100, 6
    alone = train_loader(n, per_process * world_size)
    ranks = [train_loader(n, per_process, rank, world_size) for rank in range(world_size)]
    assert {len(loader) for loader in ranks} == {len(alone)}
    for _ in range(2):  # noise and flips too, in each epoch
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert torch.equal(whole.x, torch.cat([part.x for part in parts]))
            assert torch.equal(whole.y, torch.cat([part.y for part in parts]))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("n", [3, 7, 12, 13, 24, 25])
@pytest.mark.parametrize("batch_size", [2, 4, 5])
def test_evaluation_shards_are_a_partition_in_equal_numbers_of_batches(
    world_size: int, n: int, batch_size: int
) -> None:
    orders = [EvalOrder(n, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [[order.indices(-1, b).tolist() for b in range(len(order))] for order in orders]
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(n))
    assert len({len(order) for order in orders}) == 1
    assert all(1 <= len(batch) <= batch_size for rank in batches for batch in rank)
    if world_size == 1:
        assert batches[0][0] == list(range(min(n, batch_size)))


def test_evaluation_is_the_same_for_any_batch_size_and_number_of_processes() -> None:
    def shares(batch_size: int, world_size: int) -> Iterator[Batch]:
        for rank in range(world_size):
            yield from TensorLoader(images(25), EvalOrder(25, batch_size, rank, world_size), Dequantize(), seed=0)

    def by_label(batches: Iterator[Batch]) -> torch.Tensor:
        x, y = zip(*batches, strict=True)
        return torch.cat(x)[torch.cat(y).argsort()]

    expected = by_label(shares(25, 1))
    assert torch.equal(by_label(shares(25, 1)), expected)  # twice the same
    assert torch.equal(by_label(shares(4, 1)), expected)
    assert torch.equal(by_label(shares(4, 3)), expected)


@pytest.mark.parametrize("served", range(13))
def test_a_restored_loader_goes_on_with_the_next_batch(served: int) -> None:
    expected = hashes(train_loader(), epochs=3)  # 6 batches each
    loader, got = train_loader(), []
    while len(got) < served:
        for batch in loader:
            got.append(digest(batch))
            if len(got) == served:
                break
    state = loader.state_dict()

    restored = train_loader()
    restored.load_state_dict(state)
    iter(restored)  # Lightning calls iter() twice before it reads
    while len(got) < len(expected):
        got += hashes(restored)
    assert got == expected


def test_leaving_an_epoch_early_starts_the_next_one() -> None:
    loader = train_loader()
    expected = hashes(train_loader(), epochs=2)
    assert digest(next(iter(loader))) == expected[0]
    assert digest(next(iter(loader))) == expected[6]


def test_set_epoch_goes_forward_only() -> None:
    expected = hashes(train_loader(), epochs=3)
    loader = train_loader()
    batches = iter(loader)
    loader.batch_sampler.sampler.set_epoch(2)  # type: ignore[attr-defined]
    loader.batch_sampler.sampler.set_epoch(0)  # type: ignore[attr-defined]
    assert [digest(batch) for batch in batches] == expected[12:]


def test_a_position_is_valid_only_among_the_same_batches() -> None:
    loader = train_loader(n=50, batch_size=8)
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(
        ValueError,
        match=r"TrainOrder: the checkpoint was saved within an epoch \(batch 1 of epoch 0\), but "
        r"global_batch was 8, is 4\. Resume with the same data, data\.init_args\.seed and "
        r"batch_size x processes, or from a checkpoint saved at the end of an epoch\.",
    ):
        train_loader(n=50, batch_size=4).load_state_dict(state)
    train_loader(n=50, batch_size=4, rank=1, world_size=2).load_state_dict(state)  # the same global batch
    hashes(loader)
    at_the_end = train_loader(n=50, batch_size=8)
    hashes(at_the_end)
    train_loader(n=50, batch_size=4).load_state_dict(at_the_end.state_dict())


def test_unshuffled_training_repeats_itself() -> None:
    order = TrainOrder(20, 5, seed=0, shuffle=False)
    assert [order.indices(epoch, 1).tolist() for epoch in (0, 1)] == [[5, 6, 7, 8, 9]] * 2


def test_lightning_takes_the_loader_as_stateful_and_not_as_a_dataloader() -> None:
    loader = train_loader()
    assert isinstance(loader, _Stateful)
    assert not isinstance(loader, DataLoader)  # else it would get a DistributedSampler
    assert not hasattr(loader, "sampler")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_deliver_what_the_tensor_loader_delivers(num_workers: int) -> None:
    def worker_loader() -> WorkerLoader:
        order = TrainOrder(50, 8, seed=3)
        return WorkerLoader(images(50), order, RandomFlip(DynamicBinarization()), seed=3, num_workers=num_workers)

    expected = hashes(train_loader(), epochs=3)
    loader = worker_loader()
    got = hashes(loader)
    for batch, _ in zip(loader, range(2), strict=False):
        got.append(digest(batch))
    # `zip` took a third batch before it noticed the end of the range: the loader counts what it handed out.
    assert loader.state_dict()["batches"] == 3
    assert got == expected[:8]

    restored = worker_loader()
    restored.load_state_dict(loader.state_dict())
    assert hashes(restored) + hashes(restored) == expected[9:]
