"""The density of images by the ODE, where it is known, and for a network that was not trained."""

import math
from functools import partial

import pytest
import torch
from torch import distributions as td
from torch import nn

from callbacks import ODELikelihood
from callbacks.ode_likelihood import SEED
from lit_vae.data import FakeImages
from lit_vae.diffusion import Bound, GaussianDiffusion, LinearLogSNR, Original, PixelLevels, Velocity
from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.models import VariationalDiffusion
from lit_vae.networks import UNet
from lit_vae.noise import FIXED, Draws

SIZE = 4
MEAN, VARIANCE, LAM_MAX = -0.2, 0.3, 9.0


class BestOfNormalPixels(nn.Module):
    """``E[x | z]`` of independent pixels from N(MEAN, VARIANCE)."""

    def __init__(self, shape, cond_dim):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(MEAN))

    def forward(self, z, lam, cond=None):
        a, s = per_image(alpha(lam), z), per_image(sigma(lam), z)
        return self.mean + a * VARIANCE / (a**2 * VARIANCE + s**2) * (z - a * self.mean)


def diffusion(network, prediction, **given):
    process = GaussianDiffusion(LinearLogSNR(LAM_MAX, -20.0), prediction, Bound())
    adam = partial(torch.optim.Adam, lr=1e-3)
    return VariationalDiffusion([1, SIZE, SIZE], network, process, PixelLevels(256), adam, **given)


def images(**given):
    return FakeImages(**{"num_train": 4, "num_val": 4, "num_test": 22, "size": SIZE, "num_classes": 3, **given})


def numbers_of(new_trainer, model, data, *callbacks, **given):
    trainer = new_trainer(*callbacks, **given)
    trainer.test(model, datamodule=data, verbose=False)
    return {name: value.item() for name, value in trainer.callback_metrics.items() if name.endswith("_ode")}


def test_the_density_of_normal_pixels_between_their_levels(new_trainer):
    data = images()
    model = diffusion(BestOfNormalPixels, Original())
    got = numbers_of(new_trainer, model, data, ODELikelihood(steps=101), precision="64-true")
    x = torch.cat([x for x, _ in data.test_dataloader()]).double()
    noise = Draws(SEED, FIXED, torch.arange(len(x))).uniform((1, SIZE, SIZE))
    of_x = td.Normal(MEAN, math.sqrt(VARIANCE + math.exp(-LAM_MAX)))
    expected = -of_x.log_prob(x + (noise - 0.5) / 127.5).flatten(1).sum(1).mean().item() + SIZE**2 * math.log(127.5)
    assert got["test/nll_ode"] == pytest.approx(expected, rel=1e-5)
    assert got["test/bits_per_dim_ode"] == pytest.approx(expected / (SIZE**2 * math.log(2)), rel=1e-5)


@pytest.fixture
def untrained():
    """With classes and Fourier features; its output is not 0."""
    network = partial(UNet, width=8, multipliers=[1], blocks=1, fourier=[1])
    model = diffusion(network, Velocity(), num_classes=3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.2)
    return model


def test_an_image_has_its_number_in_any_batch(untrained, new_trainer):
    one, other = (
        numbers_of(new_trainer, untrained, images(batch_size=size), ODELikelihood(3, max_images=9), precision="64-true")
        for size in (5, 22)
    )
    assert one == pytest.approx(other, rel=1e-6)
    alone = numbers_of(new_trainer, untrained, images(num_test=9), ODELikelihood(3), precision="64-true")
    assert one == pytest.approx(alone, rel=1e-6)


def test_the_class_and_the_probes_count(untrained, new_trainer):
    def number(probes):
        return numbers_of(new_trainer, untrained, images(num_test=2), ODELikelihood(2, probes))["test/nll_ode"]

    first, second, exact = map(number, (1, 2, None))
    assert len({first, second, exact}) == 3
    with torch.no_grad():
        untrained.network.clock.cond.weight.add_(1.0)
    assert number(None) != exact


def test_other_data_and_models_are_refused(new_model, new_trainer):
    binary = diffusion(BestOfNormalPixels, Original())
    with pytest.raises(ValueError, match="ODELikelihood: a density needs eight-bit images, but data has values: bin"):
        new_trainer(ODELikelihood()).test(binary, datamodule=images(values="binary"), verbose=False)
    with pytest.raises(ValueError, match=r"ODELikelihood: it needs a .*DenoisingModel, the model is a VAE\."):
        new_trainer(ODELikelihood()).test(new_model("VAE"), datamodule=images(), verbose=False)
    with pytest.raises(ValueError, match="ODELikelihood: steps"):
        ODELikelihood(steps=1)
