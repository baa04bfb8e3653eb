import math

import numpy as np
import pytest
import torch

from callbacks import Interpolations, Reconstructions, Traversals
from callbacks.drawing import GAP, WIDE_GAP
from callbacks.walks import interpolate, latent_scale
from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import to_uint8


@pytest.fixture
def asked(monkeypatch):
    """Records what a model is asked to decode."""

    def watch(model):
        calls = []
        decode = model.decode
        monkeypatch.setattr(model, "decode", lambda z, y: calls.append((z.clone(), y.clone())) or decode(z, y))
        return calls

    return watch


def with_posterior(model, kl):
    """A model whose posterior has that KL in each dimension, whatever the image."""
    means = (2.0 * torch.tensor(kl)).sqrt()  # KL(N(m, 1) || N(0, 1)) = m^2 / 2
    model.encode = lambda x, y: DiagonalGaussian(means.expand(len(x), -1), torch.zeros(len(x), len(kl)))
    return model


def test_a_row_moves_one_dimension_and_the_most_used_come_first(new_model, data, asked):
    data.setup("fit")
    model = with_posterior(new_model("VAE", latent=4), [0.1, 3.0, 0.0, 2.0])
    calls = asked(model)
    Traversals(dims=3, steps=5).draw(model, data)
    assert len(calls) == 3
    for dim, (z, _) in zip([1, 3, 0], calls, strict=True):
        expected = torch.zeros(5, 4)
        expected[:, dim] = torch.linspace(-2, 2, 5)
        torch.testing.assert_close(z, expected)


def test_from_images_the_other_dimensions_stay_at_their_latent(new_model, data, asked):
    data.setup("fit")
    model = new_model("CVAE", latent=3)
    calls = asked(model)
    Traversals(dims=3, steps=3, num_images=2, reach=1.0).draw(model, data)
    x, y = data.example_batch(2)
    starts = model.embed(x, y)
    prior = model.prior(torch.tensor([0]))
    assert len(calls) == 3
    moved = set()
    for z, labels in calls:
        blocks = z.unflatten(0, (2, 3))
        (dim,) = ((blocks - starts.unsqueeze(1)).abs().sum((0, 1)) > 1e-6).nonzero().flatten().tolist()
        moved.add(dim)
        expected = prior.mean[0, dim] + torch.tensor([-1.0, 0.0, 1.0]) * prior.std[0, dim]
        torch.testing.assert_close(blocks[:, :, dim], expected.expand(2, 3))
        assert labels.tolist() == [y[0]] * 3 + [y[1]] * 3
    assert moved == {0, 1, 2}


def test_without_a_prior_the_scale_is_that_of_the_embedded_images(new_model, data):
    data.setup("fit")
    model = new_model("AE", latent=3)
    z = model.embed(*data.example_batch(20))
    scale = latent_scale(model, data)
    torch.testing.assert_close(scale.mean, z.mean(0))
    torch.testing.assert_close(scale.std, z.std(0))
    torch.testing.assert_close(scale.use, z.std(0))


def test_linear_steps_are_equal_and_end_at_both_images():
    a, b = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = interpolate(a, b, 5)
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    torch.testing.assert_close(points.diff(dim=0), ((b - a) / 4).expand(4, *a.shape))


def test_slerp_turns_at_constant_speed_on_the_sphere():
    a, b = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = 5.0 * a / a.norm(dim=1, keepdim=True), 5.0 * b / b.norm(dim=1, keepdim=True)
    points = interpolate(a, b, 4, "slerp")
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((4, 3), 5.0, dtype=torch.float64))
    cosines = (points[1:] * points[:-1]).sum(-1) / 25.0
    torch.testing.assert_close(torch.arccos(cosines), (torch.arccos((a * b).sum(1) / 25.0) / 3).expand(3, 3))


def test_slerp_is_linear_where_there_is_no_great_circle():
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 0.0], [1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(interpolate(a, b, 3, "slerp"), interpolate(a, b, 3))


def test_interpolations_show_the_images_and_walk_between_their_latents(new_model, data, asked):
    data.setup("fit")
    model = new_model("VAE")
    calls = asked(model)
    picture = Interpolations(pairs=2, steps=3).draw(model, data)
    x, y = data.example_batch(4)
    z = model.embed(x, y)
    torch.testing.assert_close(calls[0][0].unflatten(0, (3, 2)), interpolate(z[::2], z[1::2], 3))
    pixels = np.asarray(picture)
    first = pixels[GAP : GAP + 64 : 8, GAP : GAP + 64 : 8]
    start = pixels.shape[1] - GAP - 64
    last = pixels[2 * GAP + 64 : 2 * GAP + 128 : 8, start : start + 64 : 8]
    np.testing.assert_array_equal(first, to_uint8(x[0, 0]).numpy())
    np.testing.assert_array_equal(last, to_uint8(x[3, 0]).numpy())


def test_a_class_conditional_model_walks_within_a_class(new_model, data, asked):
    data.setup("fit")
    model = new_model("CVAE")
    calls = asked(model)
    Interpolations(pairs=5, steps=2).draw(model, data)
    z, y = calls[0]
    x_all, y_all = data.example_batch(20)
    embedded = model.embed(x_all, y_all)
    for row in range(5):
        ends = [(embedded - z[5 * end + row]).norm(dim=1).argmin().item() for end in (0, 1)]
        assert ends[0] != ends[1]
        assert [y_all[i].item() for i in ends] == [row % 3] * 2
        assert y[row] == y[5 + row] == row % 3


def test_reconstructions_stand_below_their_originals(new_model, data):
    data.setup("fit")
    model = new_model("CVAE")
    pixels = np.asarray(Reconstructions(6, columns=4).draw(model, data))
    x, y = data.example_batch(6)
    x_hat = model.reconstruct(x, y)
    tops = np.cumsum([GAP, 64 + GAP, 64 + WIDE_GAP, 64 + GAP])
    for i in range(6):
        left = GAP + (i % 4) * (64 + GAP)
        for image, top in zip((x[i], x_hat[i]), tops[2 * (i // 4) :][:2], strict=True):
            shown = pixels[top : top + 64 : 8, left : left + 64 : 8]
            np.testing.assert_array_equal(shown, to_uint8(image[0]).numpy())
    assert pixels.shape == (4 * 64 + 4 * GAP + WIDE_GAP, 4 * 64 + 5 * GAP)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Traversals(steps=1), r"Traversals: steps \(=1\) must be at least 2"),
        (lambda: Interpolations(pairs=0), r"Interpolations: pairs \(=0\) must be at least 1"),
        (
            lambda: Reconstructions(columns=0),
            r"Reconstructions: columns \(=0\) must be at least 1",
        ),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_latent_map_is_traversed_value_by_value(new_model, data, asked):
    data.setup("fit")
    from lit_vae.priors import StandardNormal

    model = new_model("VAE", prior=StandardNormal([2, 2, 2]))
    calls = asked(model)
    Traversals(dims=8, steps=3).draw(model, data)
    z = torch.stack([z for z, _ in calls])
    assert z.shape[2:] == (2, 2, 2)
    torch.testing.assert_close(z.flatten(2).abs().sum((1, 2)), torch.full((8,), 4.0))
    assert math.prod(z.flatten(2).abs().sum((0, 1)).tolist()) == pytest.approx(4.0**8)
