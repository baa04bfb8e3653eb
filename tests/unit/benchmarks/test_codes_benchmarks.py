"""The quantizers, and the two ways of sampling, that are timed against each other do the same work."""

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from benchmarks.sampling import Case
    from benchmarks.timing import Row

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))


def vectors(num_embeddings: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z_e = torch.randn(3, 64, 8, 8, generator=generator)
    return torch.randn(num_embeddings, 64, generator=generator), z_e


def test_the_codes_are_the_nearest() -> None:
    """Every distance in float64: none is shorter than that to the code, but by what float32 rounds off."""
    from benchmarks.quantizer import ours

    codes, z_e = vectors(2048)
    indices, _ = ours(codes, z_e)[1]()
    distances = torch.cdist(z_e.movedim(1, -1).flatten(0, 2).double(), codes.double()).square()
    chosen = distances.gather(1, indices.flatten()[:, None])[:, 0]
    assert (chosen - distances.amin(1)).max() <= 1e-6 * distances.max()


def test_both_quantizers_make_the_same_steps() -> None:
    """The same codes, gradients and moving averages, so that it is the same work that is timed."""
    pytest.importorskip("vector_quantize_pytorch")
    from benchmarks.quantizer import ours, peer

    codes, z_e = vectors(40)
    (quantizer, step), (theirs, their_step) = ours(codes, z_e), peer(codes, z_e)
    for _ in range(3):
        for value, expected in zip(step(), their_step(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(quantizer.codebook.weight, theirs.codebook, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(quantizer.codebook.counts, theirs._codebook.cluster_size[0], rtol=1e-5, atol=0.0)
    assert not torch.allclose(theirs.codebook, codes, atol=1e-3)


def test_the_peak_is_what_lives_at_one_time() -> None:
    from benchmarks.quantizer import peak_bytes

    before = torch.zeros(1000)

    def step() -> None:
        a = before + 1.0  # 4000 bytes more than before
        b = a.double()  # 12000
        del a  # 8000
        c = b.double() + b  # 16000, since the first term is b itself
        del b, c
        torch.zeros(3000)  # 12000, and alone

    assert 16_000 <= peak_bytes(step, CPU) < 16_100  # Python numbers are tensors of a few bytes for a moment


def quantizer_rows() -> "list[Row]":
    from benchmarks import quantizer

    return quantizer.run(CPU, quick=True)


def test_a_peer_that_takes_too_much_memory_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    monkeypatch.setattr("benchmarks.quantizer.LIMIT", 0)
    monkeypatch.setattr("benchmarks.quantizer.TARGET_FROM", 1)
    rows = quantizer_rows()
    measured, computed = (row for row in rows if row.variant.startswith("vector") and row.unit == "MiB")
    assert computed.variant.endswith(", computed: too much to run it")
    assert (measured.target, computed.target) == (20.0, None)
    assert computed.value == pytest.approx(2 * measured.value)  # of twice as many codes
    assert [row.variant for row in rows if row.section == computed.section and row.unit == "ms"] == ["lit_vae"]


def test_without_the_peer_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    rows = quantizer_rows()
    assert [row.unit for row in rows] == ["ms", "MiB"] * 2
    text = "lit_vae (vector-quantize-pytorch is not installed: pip install -e '.[bench]')"
    assert [row.variant for row in rows if row.unit == "ms"] == [text] * 2
    assert all(row.ratio is None for row in rows)


def quick_cases() -> "list[Case]":
    from benchmarks.sampling import QUICK

    return [case._replace(size=4, batch=5) for case in QUICK]


@pytest.mark.parametrize("index", range(3))
@pytest.mark.usefixtures("float64")
def test_both_ways_of_sampling_draw_the_same_codes(index: int) -> None:
    from benchmarks.sampling import Draws

    draws = Draws(quick_cases()[index], CPU)
    for parameter in draws.network.parameters():
        nn.init.normal_(parameter, std=0.5)  # outputs that depend on what was drawn
    codes = draws.no_codes()
    for position in range(16):
        draws.draw_at(position, codes)
    assert torch.equal(draws.cached(), codes)
    draws.table.zero_()
    assert not torch.equal(draws.cached(), codes)


def test_the_naive_loop_takes_as_long_as_its_steps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import sampling

    clock = iter([10.0, 10.5, 20.0, 21.0])
    monkeypatch.setattr(sampling, "now", lambda device: next(clock))
    draws = sampling.Draws(quick_cases()[0], CPU)
    assert draws.naive_seconds() == 0.5 * 16
    assert draws.cached_seconds() == 1.0
