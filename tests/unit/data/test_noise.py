import math

import pytest
import torch

from lit_vae.data.noise import CROP, PIXELS, Draws, key, uniform


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
    seed, epoch, ids = 5, 3, torch.tensor([0, 7, 2**40])
    drawn = uniform(ids, 5, seed=seed, epoch=epoch, stream=PIXELS)
    for row, image in zip(drawn.tolist(), ids.tolist(), strict=True):
        start = splitmix64((image * 0x9E3779B97F4A7C15 + key(seed, epoch, PIXELS) - 0x9E3779B97F4A7C15) % 2**64, 1)[0]
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
        {"seed": 1, "epoch": 0, "stream": PIXELS},
        {"seed": 0, "epoch": 1, "stream": PIXELS},
        {"seed": 0, "epoch": 0, "stream": CROP},
        {"seed": 0, "epoch": -1, "stream": PIXELS},
    ],
)
def test_seed_epoch_and_stream_each_change_all(other: dict[str, int]) -> None:
    ids = torch.arange(100)
    first = uniform(ids, 100, seed=0, epoch=0, stream=PIXELS)
    second = uniform(ids, 100, **other)
    assert (first == second).float().mean() < 1e-3
    assert abs(torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1]) < 4 / math.sqrt(first.numel())


def test_uniform_is_uniform_within_and_across_images() -> None:
    drawn = uniform(torch.arange(2000), 500, seed=0, epoch=0, stream=PIXELS)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = torch.histc(drawn, 64, 0, 1)
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum().item()
    assert abs(chi_squared - 63) < 4 * math.sqrt(2 * 63)
    for moved in (drawn.roll(1, 0), drawn.roll(1, 1), drawn.roll(2, 1)):
        assert abs(torch.corrcoef(torch.stack([drawn.ravel(), moved.ravel()]))[0, 1]) < 4 / math.sqrt(drawn.numel())
