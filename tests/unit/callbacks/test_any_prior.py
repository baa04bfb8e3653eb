"""Everything that a VAE has works with any prior and posterior: pictures, numbers, averages of weights."""

import math
from functools import partial
from typing import Any

import pytest
import torch

from callbacks import (
    EMA,
    ImportanceSampledNLL,
    Interpolations,
    LatentReport,
    LatentScatter,
    LatentStatistics,
    Samples,
    Traversals,
)
from lit_vae.flows import AffineFlow, SplineFlow
from lit_vae.posteriors import FlowPosterior
from lit_vae.priors import FlowPrior, GaussianMixturePrior, VampPrior

STEPS = 6  # two epochs
IAF = partial(FlowPosterior, flow=partial(AffineFlow, hidden=[8]), context=2)
PAIRS: dict[str, Any] = {
    "vamp": lambda: {"prior": VampPrior([2], 5)},
    "mixture": lambda: {"prior": GaussianMixturePrior([2], 3)},
    "flow": lambda: {"prior": FlowPrior([2], partial(SplineFlow, hidden=[8]))},
    "mixture and flow": lambda: {"prior": GaussianMixturePrior([2], 3), "posterior": IAF},
}
every_pair = pytest.mark.parametrize("pair", PAIRS)


@pytest.fixture
def vae_of(new_model):
    def make(pair):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return new_model("VAE", latent=2, **PAIRS[pair]())

    return make


@every_pair
def test_numbers_and_pictures(pair, vae_of, new_trainer, data, tmp_path):
    torch.manual_seed(0)  # two of its bounds hold by a few hundredths of a nat with other noise
    model = vae_of(pair)
    pictures = [Samples(4), Traversals(2, 3), LatentScatter(), Interpolations(2, 3)]
    numbers = [LatentReport(), ImportanceSampledNLL(64, 8)]
    if model.gaussian_posterior:
        numbers.append(LatentStatistics())
    trainer = new_trainer(EMA(0.5), *pictures, *numbers, max_steps=STEPS)
    trainer.fit(model, datamodule=data)
    assert {path.name for path in (tmp_path / "media").iterdir()} >= {panel.name for panel in pictures}
    trainer.test(model, datamodule=data, verbose=False)
    got = {name.removeprefix("test/"): value.item() for name, value in trainer.callback_metrics.items()}
    assert got["nll_iw64"] < -got["elbo"]
    assert got["rate"] + got["distortion"] == pytest.approx(-got["elbo"], rel=1e-5)
    if model.gaussian_posterior:
        assert got["mutual_information"] <= math.log(20)
        # two draws for each of twenty images
        assert got["mutual_information"] + got["aggregate_kl"] == pytest.approx(got["rate"], abs=0.5)
        assert "kl_per_dim_max" not in got


def test_pseudo_inputs_start_as_training_images(vae_of, new_trainer, data):
    model = vae_of("vamp")
    new_trainer(max_steps=0).fit(model, datamodule=data)
    assert torch.equal(model.prior.pseudo_inputs, data.example_batch(5, "train").x)


def test_the_statistics_of_a_posterior_without_a_closed_density_are_refused(vae_of, new_trainer, data):
    with pytest.raises(ValueError) as error:
        new_trainer(LatentStatistics(), max_steps=1).fit(vae_of("mixture and flow"), datamodule=data)
    assert str(error.value) == (
        "LatentStatistics: it compares the posteriors of all images with one another, which takes Gaussians. Remove it"
        " from trainer.callbacks, or remove model.init_args.posterior."
    )
