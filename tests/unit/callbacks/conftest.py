"""Small models on made-up images, and a trainer that leaves nothing outside a temporary folder."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_vae.data import FakeImages
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models import AE, CVAE, VAE
from lit_vae.networks import MLP
from lit_vae.objectives import ELBO
from lit_vae.priors import ClassConditionalNormal, StandardNormal

CLASSES = 3


def make_model(family: str, latent: int = 4, size: int = 8, channels: int = 1, **given: Any):
    """A model with fully connected networks and weights that depend on nothing but its shape."""
    network = partial(MLP, hidden=[16])
    arguments: dict[str, Any] = {
        "image_shape": [channels, size, size],
        "encoder": network,
        "decoder": network,
        "likelihood": LearnedGaussian(),
        "optimizer": partial(torch.optim.Adam, lr=1e-2),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "AE":
            return AE(**arguments | {"latent_shape": [latent]} | given)
        arguments |= {"objective": ELBO()}
        if family == "VAE":
            return VAE(**arguments | {"prior": StandardNormal([latent])} | given)
        prior = ClassConditionalNormal([latent], CLASSES)
        torch.nn.init.normal_(prior.mean)
        torch.nn.init.normal_(prior.log_var)
        return CVAE(**arguments | {"prior": prior, "num_classes": CLASSES} | given)


@pytest.fixture
def new_model() -> Callable[..., Any]:
    return make_model


@pytest.fixture
def data() -> FakeImages:
    """24 training, 20 validation and 20 test images in batches of 8: the last one is smaller."""
    return FakeImages(num_train=24, num_val=20, num_test=20, size=8, num_classes=CLASSES, batch_size=8)


@pytest.fixture
def new_trainer(tmp_path) -> Callable[..., Trainer]:
    def make(*callbacks: Any, **given: Any) -> Trainer:
        defaults = {
            "callbacks": list(callbacks),
            "default_root_dir": tmp_path,
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "log_every_n_steps": 1,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        return Trainer(**defaults | given)

    return make
