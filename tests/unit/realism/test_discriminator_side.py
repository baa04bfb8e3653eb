"""The discriminator network, its penalties and its augmentations."""

import numpy as np
import pytest
import torch
from torch import nn

from lit_vae.networks import PatchDiscriminator
from lit_vae.realism import R1, Color, Cutout, LeCAM, Translation

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


# ---- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "size", "seen"), [(1, 24, 16), (2, 48, 34), (3, 100, 70)])
def test_a_logit_sees_a_patch_of_the_published_size(layers, size, seen):
    network = PatchDiscriminator((3, size, size), width=2, layers=layers, normalization="none")
    x = torch.rand(1, 3, size, size, requires_grad=True)
    logits = network(x)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows = gradient.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == seen


def test_weights_start_as_published():
    torch.manual_seed(0)
    network = PatchDiscriminator((3, 32, 32), normalization="batch")
    convolutions = [layer for layer in network.body if isinstance(layer, nn.Conv2d)]
    weights = torch.cat([layer.weight.detach().flatten() for layer in convolutions])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert sum(p.numel() for p in network.parameters()) == 2_765_633  # pix2pix, taming-transformers, latent-diffusion


def test_spectral_normalisation_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    network = PatchDiscriminator((3, 32, 32), width=4, layers=2, normalization="none", spectral=True)
    for _ in range(200):
        network(torch.rand(2, 3, 32, 32))
    for layer in network.body:
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1.0, abs=1e-3)


def test_without_batch_statistics_an_image_is_judged_by_itself():
    network = PatchDiscriminator((3, 32, 32), width=8, layers=2)
    x = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), **EXACT)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"layers \(=3\) need images of 24 pixels a side, but these are 16x16"):
        PatchDiscriminator((3, 16, 16))
    PatchDiscriminator((3, 24, 24))(torch.rand(1, 3, 24, 24))
    with pytest.raises(ValueError, match=r"width \(=0\)"):
        PatchDiscriminator((3, 16, 16), width=0)


# ---- penalties ------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """D(x) = <w, x>, as a map of one patch."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(12))

    def forward(self, x):
        return (x.flatten(1) @ self.w)[:, None, None, None]


def test_r1_of_a_linear_discriminator_is_its_squared_norm_and_pulls_it_down():
    discriminator, x = Linear(), torch.rand(5, 3, 2, 2)
    real = discriminator(x)
    term = R1(weight=10.0, every=4)(discriminator, x, real, real, step=8)
    torch.testing.assert_close(term, 4 * 5.0 * discriminator.w.square().sum(), **EXACT)
    (gradient,) = torch.autograd.grad(term, discriminator.w)
    torch.testing.assert_close(gradient, 4 * 10.0 * discriminator.w.detach(), **EXACT)


def test_r1_is_absent_between_its_steps():
    discriminator, x = Linear(), torch.rand(5, 3, 2, 2)
    real = discriminator(x)
    assert R1(every=4)(discriminator, x, real, real, step=7).item() == 0.0


def test_lecam_follows_its_formula_over_steps():
    penalty, averages = LeCAM(weight=0.3, decay=0.9), None
    for _ in range(4):
        real, fake = torch.randn(2, 6, 1, 2, 2)
        means = np.array([real.mean(), fake.mean()])
        averages = means if averages is None else 0.9 * averages + 0.1 * means
        expected = np.mean(np.maximum(0, real.numpy() - averages[1]) ** 2)
        expected += np.mean(np.maximum(0, averages[0] - fake.numpy()) ** 2)
        found = penalty(nn.Identity(), real, real, fake, 0)
        assert found.item() == pytest.approx(0.3 * expected, rel=1e-5)


def test_bad_penalties_are_refused():
    for make, text in (
        (lambda: R1(weight=0.0), r"R1: weight \(=0.0\)"),
        (lambda: R1(every=0), r"every \(=0\)"),
        (lambda: LeCAM(decay=1.0), r"LeCAM: decay \(=1.0\) must be at least 0 and less than 1"),
    ):
        with pytest.raises(ValueError, match=text):
            make()


# ---- augmentations --------------------------------------------------------------------------------------------------


def test_a_translation_is_a_shift_of_whole_pixels_each_image_its_own():
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8) + 1.0  # nothing is zero
    found, shifts = Translation(0.25)(x), set()
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for image, out in zip(padded, found, strict=True):
        same = [(i, j) for i in range(5) for j in range(5) if torch.equal(image[:, i : i + 8, j : j + 8], out)]
        assert len(same) == 1
        shifts |= set(same)
    assert len(shifts) > 15  # of 25


def test_a_cutout_is_one_grey_square():
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8) + 1.0
    found = Cutout(0.5)(x)
    for image, out in zip(x, found, strict=True):
        cut = (out == 0.0).all(0)
        rows, columns = cut.any(1), cut.any(0)
        assert torch.equal(cut, rows[:, None] & columns[None])
        assert 2 <= rows.sum() <= 4
        assert 2 <= columns.sum() <= 4
        assert torch.equal(out[:, ~cut], image[:, ~cut])


def test_color_keeps_grey_images_grey_and_moves_the_mean_by_the_brightness_alone():
    torch.manual_seed(0)
    x = torch.rand(2000, 1, 4, 4).expand(-1, 3, -1, -1) * 2 - 1
    found = Color()(x)
    torch.testing.assert_close(found, found[:, :1].expand_as(found), **EXACT)
    shift = (found - x).mean((1, 2, 3))
    assert -0.5 <= shift.min() < -0.475
    assert 0.475 < shift.max() <= 0.5
    contrast = found.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.5 <= contrast.min() < 0.55
    assert 1.45 < contrast.max() <= 1.5


def all_numbers(monkeypatch, n):
    """Let the n-th image of a batch get the n-th of the whole numbers that may be drawn; return what was asked for."""
    asked = []

    def randint(low, high, size, device=None):
        asked.append((low, high))
        assert size == (n, 1)
        return (low + torch.arange(n) % (high - low)).view(size)

    monkeypatch.setattr(torch, "randint", randint)
    return asked


@pytest.mark.parametrize("size", [4, 5, 7, 8])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8, 1.0])
def test_a_pixel_is_cut_as_often_as_published(size, ratio, monkeypatch):
    """Over all draws. Published: ``offset in [0, size - side % 2]``, pixels ``offset - side // 2 + [0, side)``."""
    side = int(size * ratio + 0.5)
    offsets = range(size + (1 - side % 2))
    expected = torch.zeros(size)
    for offset in offsets:
        covered = {min(max(offset - side // 2 + i, 0), size - 1) for i in range(side)}
        expected[list(covered)] += 1
    asked = all_numbers(monkeypatch, len(offsets))
    found = Cutout(ratio)(torch.ones(len(offsets), 1, size, size))
    assert all(high - low == len(offsets) for low, high in asked)
    assert torch.equal((found == 0.0).any(3).double().sum((0, 1)), expected)
    assert torch.equal((found == 0.0).any(2).double().sum((0, 1)), expected)
    assert torch.equal(expected, expected.flip(0))
    if (size, ratio) == (8, 0.5):
        assert (expected[0] / len(offsets)).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("size", [8, 9, 16, 20])
def test_a_translation_reaches_as_far_as_published(size, monkeypatch):
    """Shifts from -most to most, each once; published ``most = int(size / 8 + 1/2)``."""
    most = int(size * 0.125 + 0.5)
    all_numbers(monkeypatch, 2 * most + 1)
    x = torch.rand(1, 1, size, size).expand(2 * most + 1, -1, -1, -1) + 1.0
    found = Translation()(x)
    padded = torch.nn.functional.pad(x, [most] * 4)
    for i, out in enumerate(found):
        assert torch.equal(out, padded[i, :, i : i + size, i : i + size])


def test_color_is_the_published_formula_of_its_three_numbers(monkeypatch):
    """With the ends and the middle of what a uniform number may be."""
    ends = torch.tensor([0.0, 0.25, 1.0])
    grid = torch.cartesian_prod(ends, ends, ends).T[:, :, None, None, None]
    x = torch.rand(27, 3, 4, 4) * 2 - 1
    monkeypatch.setattr(torch, "rand", lambda *size, **_: grid)
    expected = x.numpy() + (grid[0].numpy() - 0.5)
    for mean, factor in (((1,), grid[1] * 2), ((1, 2, 3), grid[2] + 0.5)):
        average = expected.mean(mean, keepdims=True)
        expected = (expected - average) * factor.numpy() + average
    torch.testing.assert_close(Color()(x), torch.from_numpy(expected), **EXACT)


@pytest.mark.parametrize("augmentation", [Color(), Translation(), Cutout()])
def test_a_gradient_comes_through(augmentation):
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    augmentation(x).sum().backward()
    assert (x.grad.abs().sum((1, 2, 3)) > 0).all()


def test_bad_augmentations_are_refused():
    with pytest.raises(ValueError, match=r"Cutout: ratio \(=0.0\) must be greater than 0 and at most 1"):
        Cutout(0.0)
