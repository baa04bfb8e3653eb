"""What the docstrings of distributions, likelihoods and metrics show is what comes out."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import lit_vae.distributions
import lit_vae.likelihoods
import lit_vae.metrics

MODULES = [
    "lit_vae.likelihoods",
    *(
        f"{package.__name__}.{module.name}"
        for package in (lit_vae.distributions, lit_vae.metrics)
        for module in pkgutil.iter_modules(package.__path__)
    ),
]
WITH_EXAMPLES = {
    *("lit_vae.likelihoods", "lit_vae.distributions.continuous", "lit_vae.distributions.discrete"),
    *("lit_vae.distributions.flowed", "lit_vae.distributions.mixtures"),
    *(f"lit_vae.metrics.{name}" for name in ("code_usage", "frechet", "image_quality", "latent_structure", "latents")),
    *(f"lit_vae.metrics.{name}" for name in ("sharpness", "spectrum", "split_mean")),
}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_give_what_they_show(name):
    failed, tried = doctest.testmod(importlib.import_module(name), extraglobs={"torch": torch})
    assert failed == 0
    assert (tried > 0) == (name in WITH_EXAMPLES)
