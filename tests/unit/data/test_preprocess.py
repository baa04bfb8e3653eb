import math

import pytest
import torch

from lit_vae.data.preprocess import (
    Dequantize,
    DynamicBinarization,
    Levels,
    Preprocess,
    RandomFlip,
    StaticBinarization,
    Threshold,
)
from lit_vae.noise import FIXED, Draws

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).repeat(64, 1).view(64, 1, 16, 16)


def draws(epoch: int = 0, n: int = 64, seed: int = 0) -> Draws:
    return Draws(seed, epoch, torch.arange(n))


def test_levels_maps_ends_and_middle() -> None:
    x = Levels()(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), draws(n=3))
    torch.testing.assert_close(x.ravel(), torch.tensor([-1.0, -0.6, 1.0]))
    assert x.dtype == torch.float32


def test_dequantize_stays_in_its_bin_and_below_one_exactly() -> None:
    for epoch in range(20):
        x = Dequantize()(ALL_LEVELS, draws(epoch))
        assert x.min() >= -1
        assert x.max() < 1
        assert torch.equal(x.double().add(1).mul(128).floor().to(torch.uint8), ALL_LEVELS)


def test_dequantize_survives_the_largest_noise() -> None:
    class Largest(Draws):
        def uniform(self, size: tuple[int, ...], stream: int = 0) -> torch.Tensor:
            return torch.full((len(self.ids), *size), 1 - 2.0**-24)

    x = Dequantize()(ALL_LEVELS, Largest(0, 0, torch.arange(64)))
    assert x.max() < 1  # in float32, 255 + (1 - 2^-24) would round to 256
    assert torch.equal(x.double().add(1).mul(128).floor().to(torch.uint8), ALL_LEVELS)


def test_dequantization_noise_is_uniform_in_the_bin() -> None:
    noise = Dequantize()(ALL_LEVELS, draws()).add(1).mul(128) - ALL_LEVELS
    n = noise.numel()
    assert abs(noise.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert abs(noise.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)


def test_dynamic_binarization_has_the_grey_level_as_its_mean() -> None:
    u = torch.tensor([0, 1, 64, 128, 200, 254, 255], dtype=torch.uint8).view(1, 1, 1, 7).expand(200, 1, 1, 7)
    epochs = torch.stack([DynamicBinarization()(u, draws(epoch, 200)) for epoch in range(100)])
    assert set(epochs.unique().tolist()) == {-1.0, 1.0}
    mean = epochs.add(1).div(2).mean(dim=(0, 1, 2, 3))
    p = u[0].ravel() / 255
    standard_error = (p * (1 - p) / (100 * 200)).sqrt()
    assert ((mean - p).abs() <= 3 * standard_error).all()  # and exactly so for 0 and 255


def test_dynamic_binarization_differs_between_epochs_and_static_never() -> None:
    assert not torch.equal(DynamicBinarization()(ALL_LEVELS, draws(0)), DynamicBinarization()(ALL_LEVELS, draws(1)))
    static = [StaticBinarization()(ALL_LEVELS, draws(epoch)) for epoch in (0, 1, 7, FIXED)]
    assert all(torch.equal(static[0], other) for other in static)
    assert not torch.equal(static[0], StaticBinarization()(ALL_LEVELS, draws(0, seed=1)))


def test_evaluation_is_the_same_for_static_and_dynamic_binarization() -> None:
    static, dynamic = (binarize(ALL_LEVELS, draws(FIXED)) for binarize in (StaticBinarization(), DynamicBinarization()))
    assert torch.equal(static, dynamic)


def test_threshold_cuts_at_128() -> None:
    x = Threshold()(torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(4, 1, 1, 1), draws(n=4))
    assert x.ravel().tolist() == [-1, -1, 1, 1]


def test_random_flip_mirrors_half_of_the_images_whole() -> None:
    u = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(1000, 2, 3, 4)
    x = RandomFlip(Levels())(u, draws(n=1000))
    plain = Levels()(u, draws(n=1000))
    kept = (x == plain).all(dim=(1, 2, 3))
    mirrored = (x == plain.flip(-1)).all(dim=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert abs(kept.float().mean() - 0.5) < 4 * math.sqrt(0.25 / 1000)
    assert not torch.equal(x, RandomFlip(Levels())(u, draws(epoch=1, n=1000)))


@pytest.mark.parametrize("preprocess", [Levels(), Dequantize(), DynamicBinarization(), Threshold()])
def test_the_stored_images_are_left_as_they_are(preprocess: Preprocess) -> None:
    u = ALL_LEVELS.clone()
    RandomFlip(preprocess)(u, draws())
    assert torch.equal(u, ALL_LEVELS)
