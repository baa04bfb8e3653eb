"""Mixtures as priors, against torch's mixtures, the aggregate posterior and closed forms."""

import math

import pytest
import torch
from torch import distributions as td

from lit_vae.distributions import DiagonalGaussian, GaussianMixture
from lit_vae.images import Batch
from lit_vae.metrics.latents import log_aggregate_posterior
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, DReG, FreeBitsPerLevel, Level
from lit_vae.posteriors import GaussianPosterior
from lit_vae.priors import GaussianMixturePrior, StandardNormal, VampPrior

EXACT = {"rtol": 1e-12, "atol": 1e-12}
Y = torch.full((10,), -1)


class Examples:
    """The part of a data module that a prior starts from."""

    def __init__(self, x, y=None):
        self.batch = Batch(x, Y[: len(x)] if y is None else y)

    def example_batch(self, n, split):
        assert split == "train"
        return Batch(self.batch.x[:n], self.batch.y[:n])


def of_torch(logits, mean, log_var):
    """The same mixture by torch; an event of one dimension."""
    components = td.Independent(td.Normal(mean, torch.exp(0.5 * log_var)), 1)
    return td.MixtureSameFamily(td.Categorical(logits=logits), components)


@pytest.mark.parametrize("own", [[], [4]], ids=["shared", "own"])
@pytest.mark.parametrize(("narrow", "error"), [(2.0, 1e-12), (15.0, 1e-6)])  # standard deviations of 0.4 and of 5e-4
def test_a_mixture_has_the_density_and_the_mean_of_torchs(own, narrow, error):
    logits, mean = torch.randn(*own, 5), 3.0 * torch.randn(*own, 5, 3)
    log_var = torch.randn(*own, 5, 3) - torch.linspace(0.0, narrow, 5)[:, None]
    p, z = GaussianMixture(logits, mean, log_var, 4), torch.randn(7, 4, 3)
    z[0, 0] = mean.flatten(0, -2)[4] + 1e-4  # next to a narrow component
    expected = of_torch(logits, mean, log_var)
    torch.testing.assert_close(p.log_prob(z), expected.log_prob(z), rtol=1e-12, atol=error)
    torch.testing.assert_close(p.mean, expected.mean.expand(4, 3), **EXACT)
    maps = GaussianMixture(logits, mean.unflatten(-1, (3, 1, 1)), log_var.unflatten(-1, (3, 1, 1)), 4)
    torch.testing.assert_close(maps.log_prob(z.unflatten(-1, (3, 1, 1))), p.log_prob(z), **EXACT)
    assert maps.sample().shape == (4, 3, 1, 1)


def test_a_narrow_component_keeps_its_digits_in_float32():
    mean, log_var = torch.tensor([[7.0, -9.0], [0.0, 1.0]]), torch.tensor([[-14.0, -14.0], [0.0, 0.0]])
    z = mean[:1] + torch.tensor([[9e-4, -4e-4]])
    single = [t.float() for t in (torch.zeros(2), mean, log_var)]
    exact = of_torch(torch.zeros(2), *(t.double() for t in single[1:])).log_prob(z.float().double())
    torch.testing.assert_close(GaussianMixture(*single, 1).log_prob(z.float()).double(), exact, rtol=0, atol=1e-5)


def test_the_density_of_a_mixture_integrates_to_one():
    grid = torch.linspace(-12.0, 12.0, 4001)[:, None, None]
    p = GaussianMixture(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([[-3.0], [0.0], [4.0]]), torch.zeros(3, 1), 1)
    assert torch.trapezoid(p.log_prob(grid).exp()[:, 0], grid[:, 0, 0]).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_every_component_is_drawn_by_its_weight_and_with_the_temperature(own):
    n, weights = 20_000, torch.tensor([0.6, 0.1, 0.3])
    logits, mean, log_var = weights.log(), torch.tensor([[-50.0], [0.0], [50.0]]), torch.tensor([[0.0], [2.0], [1.0]])
    if own:
        logits, mean, log_var = (t.expand(n, *t.shape) for t in (logits, mean, log_var))
    z = GaussianMixture(logits, mean, log_var, n).sample(torch.Generator().manual_seed(0), temperature=0.5)[:, 0]
    component = (z / 50.0).round().long() + 1
    for k in range(3):
        drawn = z[component == k] - 50.0 * (k - 1)
        assert abs(len(drawn) / n - weights[k]) < 4.0 * math.sqrt(weights[k] * (1.0 - weights[k]) / n)
        std = 0.5 * math.exp(0.5 * (0.0, 2.0, 1.0)[k])
        assert abs(drawn.std() / std - 1.0) < 4.0 / math.sqrt(2.0 * len(drawn))
        assert abs(drawn.mean()) < 4.0 * std / math.sqrt(len(drawn))


def test_a_learned_mixture_starts_near_the_standard_normal_and_has_parameters_for_each_class():
    prior = GaussianMixturePrior([2, 3, 3], 400)
    variance = prior.mean.square().mean() + prior.log_var.exp().mean()
    assert variance.item() == pytest.approx(1.0, abs=0.03)
    of_classes = GaussianMixturePrior([4], 3, num_classes=5)
    z, y = torch.randn(2, 3, 4), torch.tensor([1, 3, 1])
    p = of_classes(y)
    for i, label in enumerate(y):
        alone = of_torch(of_classes.logits[label], of_classes.mean[label], of_classes.log_var[label])
        torch.testing.assert_close(p.log_prob(z)[:, i], alone.log_prob(z[:, i]), **EXACT)
    p.log_prob(z).sum().backward()
    for parameter in of_classes.parameters():
        touched = [bool((row != 0.0).all()) for row in parameter.grad]
        assert touched == [False, True, False, True, False]


def test_components_that_died_are_told():
    prior = GaussianMixturePrior([2], 4)
    assert prior.caveats() == []
    with torch.no_grad():
        prior.logits[1:3] = -7.0
    assert prior.caveats() == [
        "GaussianMixturePrior: 2 of 4 components died: each explains less than a hundredth of an equal share of the"
        " latents. Set a smaller model.init_args.prior.init_args.components."
    ]


def test_one_learned_component_has_the_rate_of_the_closed_form_up_to_the_draws(vae_with, images):
    """log q - log p at the draws, in expectation the KL; the importance weights are those of the Gaussian."""
    model = vae_with(GaussianMixturePrior([2], 1))
    with torch.no_grad():
        model.prior.mean.copy_(torch.tensor([[0.5, -1.0]]))
        model.prior.log_var.copy_(torch.tensor([[0.3, -0.7]]))
    q, p = model.encode(images, Y), DiagonalGaussian(model.prior.mean.expand(10, 2), model.prior.log_var.expand(10, 2))
    z = q.rsample(4000, Draws(0, 0, torch.arange(10)))
    ratios = q.log_prob(z) - p.log_prob(z)
    rate = Level(q, model.prior(Y), z).rate()
    torch.testing.assert_close(rate, ratios.mean(0), **EXACT)
    assert ((rate - q.kl(p)).abs() < 4.0 * ratios.std(0) / math.sqrt(4000)).all()
    assert ratios.min() < 0.0  # for a draw it may be
    torch.testing.assert_close(model.prior(Y).log_prob(z), p.log_prob(z), **EXACT)


def test_pseudo_inputs_that_are_all_images_make_the_aggregate_posterior(vae_with, images):
    """And the rate of every draw of every one of the K images is at most log K."""
    model = vae_with(VampPrior([2], 10))
    model.prior.start(Examples(images))
    with torch.no_grad():
        model.encoder.layers[-1].bias[2:] -= 8.0  # posteriors that hardly overlap
    q = model.encode(images, Y)
    z = q.rsample(200, Draws(0, 0, torch.arange(10)))
    aggregate = log_aggregate_posterior(z.flatten(0, 1), q.mean, q.log_var).unflatten(0, (200, 10))
    torch.testing.assert_close(model.prior(Y).log_prob(z), aggregate, rtol=0, atol=1e-10)
    rates = q.log_prob(z) - model.prior(Y).log_prob(z)
    assert rates.max() <= math.log(10) + 1e-12
    assert rates.max() > math.log(10) - 1e-6


def test_pseudo_inputs_learn_from_the_first_step_on(vae_with, images):
    """Also where an image is at the end of its range."""
    model = vae_with(VampPrior([2], 4))
    model.prior.start(Examples(images.sign()))
    model.training_step(Batch(images, Y), 0).backward()
    assert (model.prior.pseudo_inputs.grad.flatten(1).abs().sum(1) > 0.0).all()


def test_draws_come_from_the_posteriors_of_all_pseudo_inputs(vae_with, images):
    model = vae_with(VampPrior([2], 10))
    model.prior.start(Examples(images))
    means = model.encode(images, Y).mean
    z = model.sample_latents(500, temperature=0.0, generator=torch.Generator().manual_seed(0))
    nearest = (z[:, None] - means).norm(dim=2).min(1)
    assert nearest.values.max() < 1e-12
    counts = nearest.indices.bincount(minlength=10)
    assert ((counts - 50).abs() < 4.0 * math.sqrt(45)).all()


def test_the_scale_of_the_latents_changes_no_importance_weight(vae_with, images):
    model = vae_with(VampPrior([2], 5), hidden=())
    model.prior.start(Examples(images))
    before = model.importance_weighted_nll(images, Y, 4, 2, Draws(0, 0, torch.arange(10)))
    with torch.no_grad():
        encoder, decoder = model.encoder.layers[-1], model.decoder.layers[0]
        encoder.weight[:2] *= 7.0
        encoder.bias[:2] *= 7.0
        encoder.bias[:2] += 3.0
        encoder.bias[2:] += 2.0 * math.log(7.0)
        decoder.weight /= 7.0
        decoder.bias -= 3.0 * decoder.weight.sum(1)
    after = model.importance_weighted_nll(images, Y, 4, 2, Draws(0, 0, torch.arange(10)))
    torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)


def test_pseudo_inputs_of_a_model_with_labels_keep_their_own(vae_with, images):
    y = torch.arange(10) % 3
    model = vae_with(VampPrior([2], 6), num_classes=3)
    model.prior.start(Examples(images, y))
    z = torch.randn(1, 10, 2)
    q = model.encode(images[:6], y[:6])
    torch.testing.assert_close(model.prior(y).log_prob(z)[0], log_aggregate_posterior(z[0], q.mean, q.log_var), **EXACT)


def test_more_pseudo_inputs_than_images_are_refused(vae_with, images):
    model = vae_with(VampPrior([2], 11))
    with pytest.raises(ValueError) as error:
        model.prior.start(Examples(images))
    assert str(error.value) == (
        "VampPrior: num_pseudo_inputs (=11) must be at most the number of training images, 10: each starts as one. Set"
        " model.init_args.prior.init_args.num_pseudo_inputs."
    )


@pytest.mark.parametrize("objective", [IWAE(3), DReG(3), ELBO(free_bits=FreeBitsPerLevel(2.0), num_samples=3)])
def test_bounds_are_of_the_same_draws(vae_with, images, objective):
    """IWAE and DReG have the value that the weights give, free bits the larger of the mean rate and theirs."""
    model = vae_with(GaussianMixturePrior([2], 3), objective=objective)
    draws = Draws(0, 0, torch.arange(10))
    terms = model.step(Batch(images, Y), 0, draws.level(0)).terms
    expected = model.importance_weighted_nll(images, Y, 3, 3, Draws(0, 0, torch.arange(10)))
    if isinstance(objective, ELBO):
        assert terms["rate"].mean() < 2.0
        expected = terms["distortion"] + 2.0
    torch.testing.assert_close(terms["loss"], expected, **EXACT)


def test_free_bits_of_dimensions_need_gaussians():
    objective = ELBO(free_bits=0.1)
    assert objective.problems(1) == ELBO(free_bits=FreeBitsPerLevel(0.1)).problems(1, True, False) == []
    assert objective.problems(1, True, False) == objective.problems(1, False, True) == [
        "ELBO: free_bits counts the KL of each latent dimension, which has no closed form unless posterior and prior"
        " are Gaussian. Take lit_vae.objectives.FreeBitsPerLevel, or set free_bits: 0."
    ]  # fmt: skip


def test_the_default_posterior_is_a_gaussian(vae_with, images):
    model = vae_with(StandardNormal([2]))
    assert isinstance(model.posterior, GaussianPosterior)
    assert isinstance(model.encode(images, Y), DiagonalGaussian)
