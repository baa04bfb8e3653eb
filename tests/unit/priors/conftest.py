"""A small VAE in float64 on ten images."""

from functools import partial

import pytest
import torch

from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import CVAE, VAE
from lit_vae.networks import MLP
from lit_vae.objectives import ELBO

SHAPE = (1, 2, 3)


@pytest.fixture(autouse=True)
def _oracles_in_float64(float64: None) -> None:
    """All tests of this folder are oracles."""


@pytest.fixture
def vae_with():
    def make(prior, posterior=None, hidden=(8,), **given):
        network = partial(MLP, hidden=list(hidden))
        arguments = {"image_shape": list(SHAPE), "prior": prior, "encoder": network, "decoder": network}
        arguments |= {"likelihood": FixedGaussian(0.5), "objective": ELBO(), "posterior": posterior}
        arguments |= {"optimizer": partial(torch.optim.Adam, lr=1e-2)} | given
        return (CVAE if "num_classes" in given else VAE)(**arguments)

    return make


@pytest.fixture
def images():
    return torch.randn(10, *SHAPE, generator=torch.Generator().manual_seed(3))
