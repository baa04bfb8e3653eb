"""Perplexity and use of codes: against SciPy, exact over batches and ranks."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.stats import entropy

from lit_vae.codes import code_statistics
from lit_vae.metrics import CodeUsage

K = 50
N = 40


def codes() -> torch.Tensor:
    """Codes of 40 images, not all of them used, and unevenly."""
    return (torch.rand(N, 3, 4, generator=torch.Generator().manual_seed(0)).square() * (K - 5)).long()


def test_perplexity_is_the_exponential_of_the_entropy_in_nats():
    counts = torch.bincount(codes().flatten(), minlength=K)
    got = code_statistics(counts)
    assert got.perplexity.dtype == torch.float64
    assert got.perplexity.item() == pytest.approx(float(torch.tensor(entropy(counts.numpy())).exp()), rel=1e-12)
    assert got.usage.item() == len(codes().unique()) / K
    assert torch.equal(got.counts, counts)
    assert 1 < got.perplexity < len(codes().unique()) < K


@pytest.mark.parametrize("k", [1, 2, 512, 1 << 20])
def test_even_use_has_a_perplexity_of_k_and_one_code_of_1(k):
    even = code_statistics(torch.full((k,), 3))
    assert even.perplexity.item() == pytest.approx(k, rel=1e-12)
    assert even.usage == 1
    alone = code_statistics(torch.eye(1, k, dtype=torch.int64)[0] * 7)
    assert alone.perplexity == 1
    assert alone.usage.item() == pytest.approx(1 / k)


def test_counts_too_large_for_float32_are_exact():
    metric = CodeUsage(2)
    metric.counts += torch.tensor([2**24, 1])
    metric.update(torch.zeros(1, 1, 1, dtype=torch.int64))
    assert metric.compute().counts.tolist() == [2**24 + 1, 1]


def test_batches_and_their_order_change_nothing():
    whole, parts = CodeUsage(K), CodeUsage(K)
    whole.update(codes())
    for part in reversed(codes().split(7)):
        parts.update(part)
    for got, expected in zip(parts.compute(), whole.compute(), strict=True):
        assert torch.equal(got, expected)
    parts.reset()
    parts.update(torch.tensor([3]))
    assert parts.compute().counts.sum() == 1


@pytest.mark.parametrize(("wrong", "span"), [([0, K], f"=0 to {K}"), ([-1, 3], "=-1 to 3")])
def test_codes_out_of_range_are_told(wrong, span):
    with pytest.raises(ValueError) as error:
        CodeUsage(K).update(torch.tensor(wrong))
    assert str(error.value) == (
        f"count_codes: codes ({span}) must be between 0 and 49. "
        "Give num_embeddings (=50) of the model that made the codes."
    )


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match=r"CodeUsage: num_embeddings \(=0\) must be at least 1"):
        CodeUsage(0)
    metric = CodeUsage(K)
    metric.update(torch.empty(0, 3, 4, dtype=torch.int64))
    with pytest.raises(
        ValueError, match=r"code_statistics: counts must not all be 0\. Count the codes of at least one"
    ):
        metric.compute()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = CodeUsage(K)
    for batch in codes()[:13].split(5) if rank == 0 else codes()[13:].split(4):
        metric.update(batch)
    torch.save(metric.compute()._asdict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_count_what_one_process_does(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    alone = CodeUsage(K)
    alone.update(codes())
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, expected in alone.compute()._asdict().items():
            assert torch.equal(got[name], expected), name
