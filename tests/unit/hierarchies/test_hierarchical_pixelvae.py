"""HierarchicalPixelVAE: a distribution of images given its latents, drawn pixel by pixel."""

import itertools
from functools import partial

import pytest
import torch
from hierarchy_helpers import top_down, vector_and_map
from torch import Generator

from lit_vae.hierarchies import ResidualNormal
from lit_vae.images import Batch
from lit_vae.likelihoods import Bernoulli
from lit_vae.models import HierarchicalPixelVAE
from lit_vae.networks import GatedPixelCNN, VDVAEBlock
from lit_vae.objectives import ELBO

PIXELS = partial(GatedPixelCNN, width=6, layers=2, kernel_size=3, head_width=6)
WIRINGS = {
    "vector and map": ([[2], [2, 1, 2]], vector_and_map()),
    "top-down": ([[2, 1, 1], [1, 2, 2]], top_down(ResidualNormal(), VDVAEBlock)),
}


@pytest.fixture(params=WIRINGS)
def model(request):
    shapes, wiring = WIRINGS[request.param]
    sgd = partial(torch.optim.SGD, lr=0.1)
    return HierarchicalPixelVAE([1, 2, 2], shapes, wiring, PIXELS, Bernoulli(), ELBO(), sgd, features=3)


def every_image() -> Batch:
    x = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64).reshape(16, 1, 2, 2)
    return Batch(x, torch.full((16,), -1))


@torch.no_grad()
def test_probabilities_of_all_images_sum_to_one_given_each_latent(model):
    """Of several draws at once, too, which are those one by one."""
    x, y = every_image()
    u = torch.randn(3, 1, *model.latent_shape).expand(3, 16, -1)
    log_prob = model.decode(u, y).log_prob(x)
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(3))
    torch.testing.assert_close(log_prob[1], model.decode(u[1], y).log_prob(x))
    assert (log_prob[0] - log_prob[1]).abs().max() > 1e-6  # the latents say something


@torch.no_grad()
def test_cached_images_are_those_of_whole_passes(model):
    _, y = every_image()
    pixels = model.decode(torch.randn(16, *model.latent_shape), y)
    noise, x = Generator().manual_seed(3), torch.zeros(16, 1, 2, 2)
    for row, column in itertools.product(range(2), range(2)):
        parameters = model.network(x, None, pixels.features)[:, :, row : row + 1, column : column + 1]
        x[:, :, row : row + 1, column : column + 1] = Bernoulli()(parameters).sample(noise)
    assert torch.equal(pixels.sample(Generator().manual_seed(3)), x)
    assert x.unique().tolist() == [-1.0, 1.0]


def test_the_step_reaches_every_parameter_and_the_networks_fit(model):
    terms = model.step(every_image(), 0, None).terms
    torch.testing.assert_close(terms["rate"], terms["rate_0"] + terms["rate_1"])
    terms["loss"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all((parameter.grad != 0.0).any() for parameter in model.network.parameters())
    assert model.check_networks() == []
