"""PixelCNN and PixelVAE: exact likelihoods of small images, and draws that follow them."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Generator

from lit_vae.images import Batch, ImageSpec
from lit_vae.likelihoods import Bernoulli, Categorical, DiscretizedLogisticMixture
from lit_vae.models import PixelCNN, PixelVAE
from lit_vae.networks import MLP, GatedPixelCNN
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal

ADAM = partial(torch.optim.Adam, lr=1e-3)
NETWORK = partial(GatedPixelCNN, width=8, layers=2, kernel_size=3, head_width=8)


def pixelcnn(image_shape=(1, 2, 2), likelihood=None, **given) -> PixelCNN:
    return PixelCNN(list(image_shape), NETWORK, likelihood or Bernoulli(), ADAM, **given).double()


def pixelvae(image_shape=(1, 2, 2)) -> PixelVAE:
    network = partial(MLP, hidden=[8])
    model = PixelVAE(
        list(image_shape), StandardNormal([2]), network, network, NETWORK, Bernoulli(), ELBO(), ADAM, features=3
    )
    return model.double()


def all_binary_images() -> torch.Tensor:
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).view(16, 1, 2, 2)


@pytest.mark.parametrize("classes", [0, 3])
def test_probabilities_of_all_images_sum_to_one(classes):
    model = pixelcnn(num_classes=classes)
    x = all_binary_images()
    for label in range(max(classes, 1)):
        nll = model.nll(x, torch.full((16,), label))
        assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=1e-12)


def test_draws_follow_the_likelihood():
    model = pixelcnn()
    x = all_binary_images()
    y = torch.zeros(16, dtype=torch.int64)
    draws = model.sample(20_000, None, 1.0, Generator().manual_seed(0))
    which = ((draws.flatten(1) > 0) * torch.tensor([8, 4, 2, 1])).sum(1)
    shares = torch.bincount(which, minlength=16) / len(draws)
    torch.testing.assert_close(shares, torch.exp(-model.nll(x, y)).detach(), rtol=0, atol=0.012)


@pytest.mark.parametrize("likelihood", [Categorical(), DiscretizedLogisticMixture(2)], ids=lambda it: type(it).__name__)
def test_eight_bit_colour_pixels_are_drawn_and_have_bits(likelihood):
    model = pixelcnn((3, 3, 2), likelihood)
    x = model.sample(4, None, 1.0, Generator().manual_seed(0))
    levels = (x + 1.0) * 127.5
    torch.testing.assert_close(levels, levels.round())
    nll = model.nll(x, torch.zeros(4, dtype=torch.int64)).mean()
    bits = likelihood.bits_per_dim(nll, ImageSpec(3, 3, 2, 0, "uint8"))
    assert bits.item() == pytest.approx(nll.item() / (18 * math.log(2.0)))


def test_a_label_changes_the_likelihood_and_evaluation_is_exact():
    model = pixelcnn(num_classes=2)
    x = all_binary_images()
    terms = [model.evaluation_terms(Batch(x, torch.full((16,), label)), None) for label in (0, 1)]
    assert (terms[0]["nll"] - terms[1]["nll"]).abs().max() > 1e-4
    torch.testing.assert_close(terms[0]["loss"], terms[0]["nll"])


def test_what_does_not_fit_is_said():
    model = pixelcnn(num_classes=2)
    assert model.problems(ImageSpec(1, 2, 2, 2, "binary")) == []
    assert "model.num_classes (=2) must be the number of the data's labels (=0)" in "".join(
        model.problems(ImageSpec(1, 2, 2, 0, "binary"))
    )
    with pytest.raises(ValueError, match=r"PixelCNN: temperature \(=0.5\) must be 1: its draws are exact"):
        model.sample(1, None, 0.5)
    assert model.check_networks() == []


def test_pixelvae_is_a_distribution_of_images_given_its_latent():
    """For every z the probabilities of all images sum to one, also for several samples of z at once."""
    model = pixelvae()
    x, z = all_binary_images(), torch.randn(3, 1, 2)
    y = torch.zeros(16, dtype=torch.int64)
    log_prob = model.decode(z.expand(3, 16, 2), y).log_prob(x)
    assert log_prob.shape == (3, 16)
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(3))
    one = model.decode(z[1].expand(16, 2), y).log_prob(x)
    torch.testing.assert_close(log_prob[1], one)
    assert (log_prob[0] - log_prob[1]).abs().max() > 1e-6  # the latent says something


def test_pixelvae_bounds_its_likelihood():
    model = pixelvae()
    x, y = all_binary_images(), torch.zeros(16, dtype=torch.int64)
    torch.manual_seed(0)
    elbo = torch.stack([model.evaluation_terms(Batch(x, y), None)["elbo"] for _ in range(200)]).mean(0)
    nll = model.importance_weighted_nll(x, y, 5000, 1000)
    assert (-elbo > nll - 0.02).all()
    # the importance-weighted likelihoods are those of a distribution over all sixteen images
    assert torch.exp(-nll).sum().item() == pytest.approx(1.0, abs=0.02)


def test_pixelvae_means_have_the_expectation_of_its_draws():
    model = pixelvae()
    z = torch.randn(1, 2).expand(20_000, 2)
    pixels = model.decode(z, torch.zeros(20_000, dtype=torch.int64))
    draws = pixels.sample(Generator().manual_seed(1)).mean(0)
    torch.testing.assert_close(pixels.mean.mean(0), draws, rtol=0, atol=0.03)
    assert set(pixels.sample(Generator().manual_seed(1)).unique().tolist()) == {-1.0, 1.0}


def test_pixelvae_is_drawn_with_features_of_half_precision():
    """A prediction of a run in bf16-mixed is made under autocast."""
    model = pixelvae().float()
    x, y = torch.ones(3, 1, 2, 2, dtype=torch.float32), torch.zeros(3, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        x_hat = model.predict_step(Batch(x, y), 0)["x_hat"]
    torch.testing.assert_close(x_hat, model.predict_step(Batch(x, y), 0)["x_hat"], rtol=0, atol=0.05)
