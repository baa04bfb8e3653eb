"""Pictures and numbers of the levels of a hierarchy."""

import re
from functools import partial

import pytest
import torch

from callbacks import ClassSheet, Levels, LevelStatistics, Samples, Traversals
from callbacks.level_statistics import SEED
from callbacks.levels import upper_levels
from lit_vae.hierarchies import MarkovianBottomUp, ResidualNormal, TopDown, VectorAndMap
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.metrics.level_use import LevelUse
from lit_vae.models import HierarchicalVAE
from lit_vae.networks import MLP, GatedPixelCNN, ResidualBlock
from lit_vae.noise import FIXED, Draws
from lit_vae.objectives import ELBO

MLPS = {name: partial(MLP, hidden=[8]) for name in ("encoder", "decoder", "top_decoder")}
WIRINGS = {
    "top-down": (
        [[2, 2, 2], [1, 2, 2], [2, 4, 4]],
        partial(TopDown, posterior=ResidualNormal(), block=ResidualBlock, widths=[8, 8]),
    ),
    "Markovian": ([[3], [4]], partial(MarkovianBottomUp, encoder=partial(MLP, hidden=[8]), decoder=MLP)),
    "vector and map": (
        [[3], [2, 2, 2]],
        partial(VectorAndMap, **MLPS, network=partial(GatedPixelCNN, width=8, layers=2)),
    ),
}


@pytest.fixture(params=WIRINGS)
def model(request):
    torch.manual_seed(0)
    shapes, hierarchy = WIRINGS[request.param]
    return HierarchicalVAE([1, 8, 8], shapes, hierarchy, LearnedGaussian(), ELBO(), partial(torch.optim.Adam, lr=1e-2))


def test_each_row_takes_one_more_level_from_the_image(model, data, monkeypatch):
    data.setup("fit")
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y: asked.append(z) or decode(z, y))
    Levels(num_images=3).draw(model, data)
    x, y = data.example_batch(3)
    z = model.embed(x, y)
    assert len(asked) == model.num_levels
    for number, row in enumerate(asked, 1):
        upper = sum(model.level_sizes[:number])
        torch.testing.assert_close(row[:, :upper], z[:, :upper])
        assert not row[:, upper:].any()
    torch.testing.assert_close(asked[-1], z)


def test_a_deep_hierarchy_has_the_rows_that_fit(model, data):
    data.setup("fit")
    full, short = (Levels(num_images=3, rows=rows).draw(model, data).height for rows in (8, 1))
    assert short < full
    assert upper_levels(torch.ones(1, 5), (2, 3), 1).tolist() == [[1, 1, 0, 0, 0]]


def test_the_statistics_are_those_of_all_images(model, data, new_trainer):
    trainer = new_trainer(LevelStatistics(1))
    trainer.validate(model, datamodule=data, verbose=False)
    got = {name: value.item() for name, value in trainer.callback_metrics.items()}
    x, y = data.example_batch(20, "val")
    with torch.no_grad():
        levels, _ = model.path(model.encode(x, y), y, 1, Draws(SEED, FIXED, torch.arange(20)))
    total = 0
    for i, level in enumerate(levels):
        kl = level.kl_per_dim().flatten(1).mean(0)
        mean = ((level.posterior.mean - level.prior.mean) / level.prior.std)[0].flatten(1)
        active = (mean.var(0, correction=0) > 0.01).sum().item()
        assert got[f"val/active_units_{i}"] == active
        assert got[f"val/kl_per_dim_mean_{i}"] == pytest.approx(kl.mean().item(), rel=1e-4)
        assert got[f"val/kl_per_dim_max_{i}"] == pytest.approx(kl.max().item(), rel=1e-4)
        total += active
    assert got["val/active_units"] == total > 0
    assert {f"val/{name}" for name in LevelStatistics().numbers(model, data)} <= got.keys()


def test_a_dimension_that_does_not_move_is_not_active():
    use = LevelUse([2, 1])
    still = torch.tensor([[5.0, 1.0], [5.0, -1.0]])
    use.update([still.square(), torch.zeros(2, 1)], [still, torch.zeros(2, 1)])
    (kl, active), (_, none) = use.compute()
    assert (kl.tolist(), active.item(), none.item()) == ([25.0, 1.0], 1, 0)


@pytest.mark.parametrize("callback", [Levels(), LevelStatistics()])
def test_one_level_has_none(callback, new_model, new_trainer, data):
    with pytest.raises(ValueError, match=f"{type(callback).__name__}: VAE has one level of latents"):
        new_trainer(callback).validate(new_model("VAE"), datamodule=data)


def test_samples_have_a_temperature_for_each_level(model, monkeypatch):
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y: asked.append(z) or decode(z, y))
    temperatures = [0.5, *[0.0] * (model.num_levels - 1)]
    panel = Samples(4, temperature=temperatures)
    panel.check_model(model)
    panel.draw(model)
    (z,) = asked
    top = model.level_sizes[0]
    eps = torch.randn(4, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z[:, :top], 0.5 * eps[:, :top])
    assert not z[:, top:].any()
    assert panel.caption.endswith(f"temperature 0.5{', 0' * (model.num_levels - 1)}")


@pytest.mark.parametrize("panel", [Samples, ClassSheet])
def test_temperatures_that_do_not_fit(panel, model, new_model):
    with pytest.raises(ValueError) as error:
        panel(temperature=[1.0] * 7).check_model(model)
    assert str(error.value) == (
        f"{panel.__name__}: temperature (={[1.0] * 7}) must be one number, or one for each of the model's"
        f" {model.num_levels} levels, from the top. Set init_args.temperature of callbacks.{panel.__name__}."
    )
    for temperature in ([0.5], []):
        with pytest.raises(ValueError, match=rf"temperature \(={re.escape(str(temperature))}\) must be one number\."):
            panel(temperature=temperature).check_model(new_model("VAE"))


def test_a_traversal_walks_through_one_level_in_units_of_its_prior(model, data, monkeypatch):
    data.setup("fit")
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y: asked.append(z) or decode(z, y))
    first = 0
    for level, size in enumerate(model.level_sizes):
        panel = Traversals(dims=100, steps=3, level=level)
        panel.check_model(model)
        panel.draw(model, data)
        walked = torch.stack(asked)
        asked.clear()
        assert walked.shape[:2] == (size, 3)
        expected = torch.zeros(3, size)
        expected[0], expected[2] = -2.0, 2.0
        torch.testing.assert_close(walked.sum(0)[:, first : first + size], expected)
        assert not walked[..., :first].any()
        assert not walked[..., first + size :].any()
        first += size


def test_a_level_that_is_not_there(model, new_model):
    for of, number in ((model, model.num_levels), (new_model("VAE"), 1)):
        Traversals(level=number - 1).check_model(of)
        with pytest.raises(ValueError) as error:
            Traversals(level=number).check_model(of)
        assert str(error.value) == (
            f"Traversals: level (={number}) must be less than {number}, the number of levels of the model."
            " Set init_args.level of callbacks.Traversals."
        )
