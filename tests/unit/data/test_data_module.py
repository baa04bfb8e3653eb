"""What all data modules share, shown on the fake one; and what a fresh import costs."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from data_helpers import levels

import lit_vae.data
from lit_vae.data import FakeImages, ImageDataModule
from lit_vae.data.base import hold_out
from lit_vae.data.orders import example_order
from lit_vae.data.splits import Split, SplitDataModule
from lit_vae.images import Values


def fake(**changes: object) -> FakeImages:
    arguments = {"num_train": 40, "num_val": 13, "num_test": 9, "size": 8, "batch_size": 8} | changes
    return FakeImages(**arguments)  # type: ignore[arg-type]


def as_process(data: ImageDataModule, rank: int, world_size: int) -> ImageDataModule:
    device = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=world_size, num_devices=world_size, strategy=device, overfit_batches=0.0
    )
    return data


def test_batches_follow_the_convention() -> None:
    data = fake(channels=3)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        for x, y in loader:
            assert x.dtype == torch.float32
            assert x.shape == (len(y), *data.spec.shape)
            assert x.min() >= -1
            assert x.max() <= 1
            assert y.dtype == torch.int64
            assert 0 <= y.min() <= y.max() < data.spec.num_classes


def test_evaluation_comes_in_order_and_whole() -> None:
    data = fake()
    for split, loader in (("val", data.val_dataloader()), ("test", data.predict_dataloader())):
        source = data.source(split)  # type: ignore[arg-type]
        assert torch.equal(levels(torch.cat([x for x, _ in loader])), source.images)  # type: ignore[attr-defined]


@pytest.mark.parametrize("values", ["uint8", "dequantized", "binary"])
def test_ordered_and_examples_are_the_same_bytes_each_time_and_everywhere(values: Values) -> None:
    first, second = fake(values=values), as_process(fake(values=values), rank=1, world_size=2)
    for split in ("train", "val", "test"):
        ordered = torch.cat([x for x, _ in first.ordered_dataloader(split)])  # type: ignore[arg-type]
        list(first.train_dataloader())  # what training draws in between changes nothing
        assert torch.equal(torch.cat([x for x, _ in second.ordered_dataloader(split)]), ordered)  # type: ignore[arg-type]
        order = example_order(first.source(split).classes())  # type: ignore[arg-type]
        for n in (1, 8):
            assert torch.equal(first.example_batch(n, split).x, ordered[order[:n]])  # type: ignore[arg-type]
            assert torch.equal(second.example_batch(n, split).x, ordered[order[:n]])  # type: ignore[arg-type]


def test_random_flip_is_for_training_alone() -> None:
    data = fake()
    plain = torch.cat([x for x, _ in data.ordered_dataloader("train")])
    data.random_flip = True
    assert torch.equal(torch.cat([x for x, _ in data.ordered_dataloader("train")]), plain)
    trained = torch.cat([x for x, _ in data.train_dataloader()])
    flips = [not (plain == x).flatten(1).all(1).any() for x in trained]
    assert 0 < sum(flips) < len(flips)
    assert all((plain == x.flip(-1)).flatten(1).all(1).any() for x, flip in zip(trained, flips, strict=True) if flip)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_the_splits(world_size: int) -> None:
    alone = fake(batch_size=4 * world_size).train_dataloader()
    ranks = [as_process(fake(batch_size=4), rank, world_size) for rank in range(world_size)]
    for whole, *parts in zip(alone, *(data.train_dataloader() for data in ranks), strict=True):
        assert torch.equal(whole.x, torch.cat([part.x for part in parts]))
    val = torch.cat([x for data in ranks for x, _ in data.val_dataloader()])
    expected = torch.cat([x for x, _ in fake().val_dataloader()])
    assert sorted(map(bytes, val.numpy())) == sorted(map(bytes, expected.numpy()))


def test_an_initialised_process_group_counts_more_than_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    order = fake().val_dataloader().batch_sampler
    assert order.indices(-1, 0).tolist() == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize(
    ("stage", "read"),
    [("fit", {"train", "val"}), ("validate", {"train", "val"}), ("test", {"test"}), ("predict", {"test"})],
)
def test_setup_reads_what_the_stage_needs(stage: str, read: set[Split]) -> None:
    data = fake()
    data.setup(stage)
    assert set(data._sources) == read
    before = dict(data._sources)
    data.setup(stage)
    assert all(data._sources[split] is before[split] for split in read)


def test_hold_out_partitions_by_seed() -> None:
    parts = hold_out(100, 20, 10, seed=1)
    assert [len(part) for part in parts] == [70, 20, 10]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(100))
    assert all(torch.equal(a, b) for a, b in zip(parts, hold_out(100, 20, 10, seed=1), strict=True))
    assert not torch.equal(parts[1], hold_out(100, 20, 10, seed=2)[1])


def test_fake_images_are_smooth_differ_and_show_their_class() -> None:
    data = FakeImages(num_train=300, size=16, num_classes=4)
    x, y = data.example_batch(300, "train")
    assert len(x.flatten(1).unique(dim=0)) == 300
    assert set(y.tolist()) == {0, 1, 2, 3}
    assert (x[..., 1:] - x[..., :-1]).abs().mean() < 0.3 * (x - x.mean()).abs().mean()
    means = torch.stack([x[y == label].flatten(1).mean(0) for label in range(4)])
    nearest = torch.cdist(x.flatten(1), means).argmin(1)
    assert (nearest == y).float().mean() > 0.6  # a quarter by chance
    assert not torch.equal(data.example_batch(50, "val").x, data.example_batch(50, "test").x)


def test_fake_images_without_classes_are_labelled_minus_one() -> None:
    data = fake(num_classes=0)
    assert data.spec.num_classes == 0
    assert data.example_batch(5).y.tolist() == [-1] * 5


def test_fake_binary_images_are_binary() -> None:
    data = fake(values="binary")
    assert data.spec.values == "binary"
    assert set(data.example_batch(10).x.unique().tolist()) == {-1.0, 1.0}


def test_all_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(ValueError) as error:
        FakeImages(batch_size=0, num_classes=-1)
    assert str(error.value).splitlines() == [
        "FakeImages: num_classes (=-1) must be at least 0.",
        "FakeImages: batch_size (=0) must be at least 1.",
    ]
    with pytest.raises(ValueError, match=r"^FakeImages: values \(='grey'\) must be one of binary, uint8, dequantized"):
        FakeImages(values="grey")  # type: ignore[arg-type]


def test_a_batch_is_at_most_all_images() -> None:
    said = (
        "FakeImages: batch_size (=41) is more than the 40 training images; batches are of 40."
        " Set data.init_args.batch_size: 40."
    )
    with pytest.warns(UserWarning, match=re.escape(said)):
        batches = list(fake(batch_size=41).train_dataloader())
    assert [len(batch.x) for batch in batches] == [40]
    with pytest.warns(
        UserWarning, match=r"batch_size \(=21\) x 2 processes is more than the 40 .* of 20 x 2 processes"
    ):
        loader = as_process(fake(batch_size=21), 0, 2).train_dataloader()
    assert [len(batch.x) for batch in loader] == [20]
    with pytest.raises(
        ValueError, match=r"40 training images are fewer than the 41 processes\. Lower trainer\.devices"
    ):
        as_process(fake(), 0, 41).train_dataloader()


def test_examples_are_at_most_all_images() -> None:
    assert len(fake().example_batch(14).x) == 13
    with pytest.raises(ValueError, match=r"FakeImages: n \(=0\) examples must be at least 1\."):
        fake().example_batch(0)


def test_import_lit_vae_is_light() -> None:
    code = "import sys, lit_vae; print([m for m in ('torch', 'lightning', 'sklearn') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names() -> None:
    assert all(issubclass(getattr(lit_vae.data, name), SplitDataModule) for name in lit_vae.data.__all__)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("values", ["uint8", "dequantized", "binary"])
def test_batches_are_made_on_the_gpu_and_are_those_of_the_cpu(values: Values) -> None:
    data = as_process(fake(values=values), 0, 1)
    data.trainer.strategy.root_device = torch.device("cuda", 0)  # type: ignore[union-attr]
    data.random_flip = True
    loader = data.train_dataloader()
    assert loader.source.images.is_cuda  # type: ignore[attr-defined]
    host = fake(values=values)
    host.random_flip = True
    for ours, theirs in zip(loader, host.train_dataloader(), strict=True):
        assert ours.x.is_cuda
        torch.testing.assert_close(ours.x.cpu(), theirs.x, rtol=0, atol=1e-6)
        assert torch.equal(ours.y.cpu(), theirs.y)


def test_a_share_is_a_rank_s_part_of_what_comes_in_order() -> None:
    whole = torch.cat([x for x, _ in fake().ordered_dataloader("test")])
    for rank in range(2):
        data = as_process(fake(), rank, 2)
        assert torch.equal(torch.cat([x for x, _ in data.ordered_dataloader("test", share=True)]), whole[rank::2])
        assert torch.equal(torch.cat([x for x, _ in data.ordered_dataloader("test")]), whole)


def test_a_fingerprint_is_of_the_images_of_a_split() -> None:
    first = fake().fingerprint("train")
    assert fake(batch_size=3).fingerprint("train") == first
    others = [
        fake().fingerprint("test"),
        fake(num_train=41).fingerprint("train"),
        fake(size=9).fingerprint("train"),
        fake(values="binary").fingerprint("train"),
        fake(seed=1).fingerprint("train"),
    ]
    assert len({first, *others}) == 6
    # the noise of dequantisation is no part of it
    assert fake(values="dequantized").fingerprint("train") == fake(values="uint8").fingerprint("train")


def test_examples_are_spread_over_the_split_and_its_classes() -> None:
    labels = torch.arange(10).repeat_interleave(100)  # a folder after the other
    order = example_order(labels)
    assert sorted(order.tolist()) == list(range(1000))
    for n in (10, 50, 1000):
        assert labels[order[:n]].bincount().tolist() == [n // 10] * 10
    few = example_order(torch.arange(100).repeat_interleave(10))[:16]
    assert len(set((few // 10).tolist())) == 16
    assert (few // 10).max() > 60  # not the first sixteen classes
    alike = example_order(torch.full((1000,), -1))[:200].float()
    assert abs(alike.mean() - 499.5) < 4 * 288.7 / 200**0.5
    uneven = torch.tensor([0] * 97 + [1] * 2 + [2])
    assert uneven[example_order(uneven)[:5]].sort().values.tolist() == [0, 0, 1, 1, 2]


def test_examples_are_the_same_whatever_the_seed_and_the_number_of_them() -> None:
    first, second = (FakeImages(num_val=40, size=8, batch_size=7, seed=seed) for seed in (0, 1))
    many = first.example_batch(39)
    whole = torch.cat([x for x, _ in first.ordered_dataloader("val")])
    for n in (1, 9, 39):
        assert torch.equal(torch.cat([x for x, _ in first.example_dataloader(n)]), many.x[:n])
        assert torch.equal(first.example_batch(n).y, many.y[:n])
    for n in (40, 1000):  # all of them are in order
        assert torch.equal(first.example_batch(n).x, whole)
        assert torch.equal(torch.cat([x for x, _ in first.example_dataloader(n)]), whole)
    second._sources = first._sources  # a split that comes with the data
    assert torch.equal(second.example_batch(9).x, many.x[:9])
