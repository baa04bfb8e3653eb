"""Small models in float64, made from Python."""

from functools import partial

import pytest
import torch

from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import AE, CVAE, VAE
from lit_vae.networks import MLP
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal


@pytest.fixture(autouse=True)
def _oracles_in_float64(float64: None) -> None:
    """All tests of this folder are oracles."""


def make_model(family: str, image_shape=(1, 3, 4), latent=2, hidden=(8,), **given):
    """A model with fully connected networks; ``hidden: []`` makes it linear."""
    network = partial(MLP, hidden=list(hidden))
    arguments = {
        "image_shape": list(image_shape),
        "encoder": network,
        "decoder": network,
        "likelihood": FixedGaussian(1.0),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
    }
    if family == "AE":
        return AE(**arguments | {"latent_shape": [latent]} | given)
    arguments |= {"prior": StandardNormal([latent]), "objective": ELBO()}
    if family == "VAE":
        return VAE(**arguments | given)
    return CVAE(**arguments | {"num_classes": 4} | given)


@pytest.fixture
def new_model():
    return make_model
