import math

import pytest
import torch

from lit_vae.noise import CROP, LATENTS, PIXELS, Draws, key, normal, uniform


def splitmix64(seed: int, n: int) -> list[int]:
    """The published generator, in Python integers."""
    words = []
    for _ in range(n):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        words.append(z ^ (z >> 31))
    return words


def test_key_is_the_published_splitmix64() -> None:
    # First outputs for seed 1234567, as listed by Rosetta Code.
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]
    assert key(1234567) == 6457827717110365317


def test_an_image_stream_is_splitmix64() -> None:
    seed, time, ids = 5, 3, torch.tensor([0, 7, 2**40])
    drawn = uniform(ids, 5, seed=seed, time=time, stream=PIXELS)
    for row, image in zip(drawn.tolist(), ids.tolist(), strict=True):
        start = splitmix64((image * 0x9E3779B97F4A7C15 + key(seed, time, PIXELS) - 0x9E3779B97F4A7C15) % 2**64, 1)[0]
        halves = [half for word in splitmix64(start, 3) for half in (word & 0xFFFFFF, word >> 32 & 0xFFFFFF)]
        assert row == [half * 2.0**-24 for half in halves[:5]]


def test_a_draw_depends_on_the_image_and_not_on_its_batch() -> None:
    ids = torch.arange(50)
    whole = Draws(1, 2, ids).uniform((3, 4, 4))
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    parts = [Draws(1, 2, part).uniform((3, 4, 4)) for part in shuffled.split(7)]
    assert torch.equal(torch.cat(parts), whole[shuffled])


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1, "time": 0, "stream": PIXELS},
        {"seed": 0, "time": 1, "stream": PIXELS},
        {"seed": 0, "time": 0, "stream": CROP},
        {"seed": 0, "time": -1, "stream": PIXELS},
    ],
)
def test_seed_time_and_stream_each_change_all(other: dict[str, int]) -> None:
    ids = torch.arange(100)
    first = uniform(ids, 100, seed=0, time=0, stream=PIXELS)
    second = uniform(ids, 100, **other)
    assert (first == second).float().mean() < 1e-3
    assert abs(torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1]) < 4 / math.sqrt(first.numel())


def test_uniform_is_uniform_within_and_across_images() -> None:
    drawn = uniform(torch.arange(2000), 500, seed=0, time=0, stream=PIXELS)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn, 64, 0, 1)
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum().item()
    assert abs(chi_squared - 63) < 4 * math.sqrt(2 * 63)
    for moved in (drawn.roll(1, 0), drawn.roll(1, 1), drawn.roll(2, 1)):
        assert abs(torch.corrcoef(torch.stack([drawn.ravel(), moved.ravel()]))[0, 1]) < 4 / math.sqrt(drawn.numel())


def test_normal_is_box_and_muller_of_the_stream() -> None:
    ids = torch.tensor([0, 7, 2**40])
    drawn = normal(ids, 5, seed=5, time=3, stream=LATENTS)
    for row, image in zip(drawn.tolist(), ids.tolist(), strict=True):
        start = splitmix64((image * 0x9E3779B97F4A7C15 + key(5, 3, LATENTS) - 0x9E3779B97F4A7C15) % 2**64, 1)[0]
        expected = []
        for word in splitmix64(start, 3):
            u, v = (((half & 0x7FFFFFFF) + 0.5) / 2**31 for half in (word, word >> 32))
            radius = math.sqrt(-2.0 * math.log(u))
            expected += [radius * math.cos(2.0 * math.pi * v), radius * math.sin(2.0 * math.pi * v)]
        assert row == pytest.approx(expected[:5], rel=1e-5, abs=1e-6)


def test_a_normal_draw_depends_on_image_and_sample_and_not_on_batch_or_chunk() -> None:
    ids = torch.arange(50)
    whole = Draws(1, 2, ids).normal(7, (3, 1, 5))  # of an odd size: pairs lie across samples
    assert whole.shape == (7, 50, 3, 1, 5)
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    parts = [
        torch.cat([Draws(1, 2, part).normal(3, (3, 1, 5), first=4), Draws(1, 2, part).normal(4, (3, 1, 5))])
        for part in shuffled.split(7)
    ]
    assert torch.equal(torch.cat(parts, 1), whole[[4, 5, 6, 0, 1, 2, 3]][:, shuffled])


def test_normal_is_normal_within_and_across_images() -> None:
    drawn = normal(torch.arange(2000), 500, seed=0, time=0, stream=LATENTS).double()
    n = drawn.numel()
    levels = torch.special.ndtri(torch.arange(1, 64, dtype=torch.float64) / 64)
    counts = torch.bincount(torch.bucketize(drawn.ravel(), levels), minlength=64).double()
    chi_squared = ((counts - n / 64) ** 2 / (n / 64)).sum().item()
    assert abs(chi_squared - 63) < 4 * math.sqrt(2 * 63)
    beyond = (drawn.abs() > 4.0).sum().item()
    expected = n * math.erfc(4.0 / math.sqrt(2.0))  # 63 of a million
    assert abs(beyond - expected) < 4 * math.sqrt(expected)
    for moved in (drawn.roll(1, 0), drawn.roll(1, 1), drawn.roll(2, 1)):
        assert abs(torch.corrcoef(torch.stack([drawn.ravel(), moved.ravel()]))[0, 1]) < 4 / math.sqrt(n)
        squares = torch.stack([drawn.ravel().square(), moved.ravel().square()])
        assert abs(torch.corrcoef(squares)[0, 1]) < 4 / math.sqrt(n)


def test_no_number_is_given_twice():
    draws = Draws(1, 2, torch.arange(3))
    draws.normal(2, (4,))
    draws.normal(1, (4,), first=2)
    draws.level(1).normal(3, (4,))
    draws.uniform((4,))
    for again in (
        lambda: draws.normal(1, (4,), first=1),
        lambda: draws.level(0).normal(2, (4,)),
        lambda: draws.level(1).normal(1, (4,), first=2),
        lambda: draws.uniform((4,)),
    ):
        with pytest.raises(
            ValueError, match=r"Draws: samples \d to \d of stream \d+ were drawn before\. .* draws.level\(0\)"
        ):
            again()


def test_levels_are_independent_and_the_first_is_the_draws_themselves():
    ids = torch.arange(2000)
    draws = Draws(1, 2, ids)
    levels = torch.stack([draws.level(i).normal(1, (8,)).flatten() for i in range(4)])
    assert torch.equal(levels[0], Draws(1, 2, ids).normal(1, (8,)).flatten())
    off = torch.corrcoef(levels) - torch.eye(4)
    assert off.abs().max() < 4.0 / 16_000**0.5


@pytest.mark.parametrize("n", [7, 64, 1000])
def test_spread_numbers_are_even_over_the_batch_whatever_its_size_and_its_parts(n: int) -> None:
    ids = torch.arange(n)
    whole = Draws(3, 5, ids).spread()
    parts = torch.cat([Draws(3, 5, part).spread() for part in ids.split(3)])
    assert torch.equal(whole, parts)
    assert ((whole >= 0.0) & (whole < 1.0)).all()
    gaps = torch.diff(torch.cat([whole, whole.min()[None] + 1.0]).sort().values)
    assert float(gaps.max()) < 2.7 / n  # three lengths at most; independent numbers leave gaps of about ln(n) / n
    assert not torch.equal(whole, Draws(3, 6, ids).spread())  # another batch starts elsewhere
