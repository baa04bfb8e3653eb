"""Likelihoods: their normalisers, their optima, their units, and what they say of unfit images."""

import math

import pytest
import torch

from lit_vae import likelihoods as lk
from lit_vae.images import ImageSpec, dequantize, from_uint8

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SHAPE = (3, 2, 2)
SIZE = 12

ALL = {
    "Bernoulli": lk.Bernoulli,
    "FixedGaussian": lk.FixedGaussian,
    "LearnedGaussian": lk.LearnedGaussian,
    "PixelGaussian": lk.PixelGaussian,
    "Laplace": lk.Laplace,
    "DiscretizedLogisticMixture": lk.DiscretizedLogisticMixture,
}


pytestmark = pytest.mark.usefixtures("float64")


def spec(values, num_classes=0, shape=SHAPE) -> ImageSpec:
    return ImageSpec(*shape, num_classes, values)


# ---- conventions ----------------------------------------------------------------------------------------------------


def test_variance_one_half_makes_the_distortion_the_squared_error_plus_a_constant():
    x, x_hat = torch.randn(5, *SHAPE), torch.randn(5, *SHAPE)
    distortion = -lk.FixedGaussian(0.5)(x_hat).log_prob(x)
    expected = (x - x_hat).square().flatten(1).sum(1) + SIZE / 2 * math.log(math.pi)
    torch.testing.assert_close(distortion, expected, **EXACT)


@pytest.mark.parametrize("variance", [0.01, 0.5, 3.0])
def test_fixed_gaussian_has_its_normaliser_with_a_plus_sign_in_the_distortion(variance):
    x = torch.randn(5, *SHAPE)
    at_the_mean = -lk.FixedGaussian(variance)(x).log_prob(x)
    torch.testing.assert_close(at_the_mean, torch.full((5,), SIZE / 2 * math.log(2 * math.pi * variance)), **EXACT)


def test_beta_and_variance_are_one_knob():
    """With beta = 2 v, the gradient of squared error + beta rate is beta times that of Gaussian distortion + rate."""
    x, beta = torch.randn(5, *SHAPE), 0.37
    x_hat = torch.randn(5, *SHAPE, requires_grad=True)
    rate = x_hat.square().flatten(1).sum(1)  # stands for any rate of the same parameters
    squared_error = (x - x_hat).square().flatten(1).sum(1)
    (of_beta,) = torch.autograd.grad((squared_error + beta * rate).sum(), x_hat, retain_graph=True)
    distortion = -lk.FixedGaussian(beta / 2)(x_hat).log_prob(x)
    (of_variance,) = torch.autograd.grad((distortion + rate).sum(), x_hat)
    torch.testing.assert_close(of_beta, beta * of_variance, **EXACT)


def test_learned_variance_has_its_optimum_at_the_mean_squared_error():
    x, x_hat = torch.randn(50, *SHAPE), torch.randn(50, *SHAPE)
    mse = (x - x_hat).square().mean().item()
    likelihood = lk.LearnedGaussian(initial_variance=mse)
    loss = -likelihood(x_hat).log_prob(x).mean()
    (grad,) = torch.autograd.grad(loss, likelihood.log_var)
    assert abs(grad.item()) < 1e-12
    for wrong in (0.9 * mse, 1.1 * mse):
        assert -lk.LearnedGaussian(wrong)(x_hat).log_prob(x).mean() > loss


def test_learned_laplace_scale_has_its_optimum_at_the_mean_absolute_error():
    x, x_hat = torch.randn(50, *SHAPE), torch.randn(50, *SHAPE)
    likelihood = lk.Laplace(scale=(x - x_hat).abs().mean().item())
    (grad,) = torch.autograd.grad(-likelihood(x_hat).log_prob(x).mean(), likelihood.log_scale)
    assert abs(grad.item()) < 1e-12


def test_a_scale_that_is_not_learned_is_an_argument_that_no_checkpoint_overrides():
    fixed, learned = lk.Laplace(0.5, learned=False), lk.Laplace(0.1)
    assert not fixed.state_dict()
    assert not list(fixed.parameters())
    fixed.load_state_dict(learned.state_dict(), strict=False)
    assert fixed.temperature.item() == pytest.approx(0.5)


def test_pixel_gaussian_keeps_above_its_least_deviation_with_a_gradient_everywhere():
    likelihood = lk.PixelGaussian(min_std=0.1)
    raw = torch.tensor([-50.0, -5.0, 0.0, 5.0]).reshape(4, 1, 1, 1).requires_grad_()
    std = likelihood(torch.cat([torch.zeros_like(raw), raw], 1)).std
    assert (std >= 0.1).all()
    assert std[0].item() == pytest.approx(0.1, rel=1e-12)
    assert std[3].item() == pytest.approx(math.exp(2.5), rel=1e-3)
    (grad,) = torch.autograd.grad(std.log().sum(), raw)
    assert (grad > 0.0).all()


def test_pixel_gaussian_takes_means_first_then_log_variances():
    parameters = torch.randn(5, 6, 2, 2)
    distribution = lk.PixelGaussian()(parameters)
    torch.testing.assert_close(distribution.mean, parameters[:, :3], rtol=0, atol=0)
    assert distribution.log_var.shape == (5, 3, 2, 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", list(ALL))
def test_parameters_of_any_number_of_channels_and_samples_become_an_image_distribution(name, channels):
    likelihood = ALL[name]()
    parameters = torch.randn(7, 5, likelihood.num_parameters(channels), 2, 3)
    distribution = likelihood(parameters)
    assert distribution.mean.shape == (7, 5, channels, 2, 3)
    assert distribution.event_ndim == 3
    x = from_uint8(torch.randint(2, (5, channels, 2, 3)) * 255).double()
    log_prob = distribution.log_prob(x)
    torch.testing.assert_close(log_prob[2], likelihood(parameters[2]).log_prob(x), **EXACT)
    grad = torch.autograd.functional.jacobian(lambda p: likelihood(p).log_prob(x).sum(), parameters)
    assert (grad != 0.0).transpose(0, 2).flatten(1).any(1).all()  # no output of the decoder is left unused


@pytest.mark.parametrize(("channels", "for_each"), [(1, 3), (3, 10)])
def test_mixture_needs_as_many_parameters_as_pixelcnn_says(channels, for_each):
    assert lk.DiscretizedLogisticMixture(num_mixtures=10).num_parameters(channels) == 10 * for_each


def test_mixture_splits_each_component_into_logit_means_scales_and_coefficients():
    parameters = torch.randn(5, 20, 2, 2)
    distribution = lk.DiscretizedLogisticMixture(num_mixtures=2, min_log_scale=-7.0)(parameters)
    second = parameters[:, 10:]
    torch.testing.assert_close(distribution.logits[:, 1], second[:, 0])
    torch.testing.assert_close(distribution.means[:, 1], second[:, 1:4])
    torch.testing.assert_close(distribution.coefficients[:, 1], second[:, 7:].tanh())
    expected = -7.0 + torch.log1p((second[:, 4:7] + 7.0).exp())
    torch.testing.assert_close(distribution.log_scales[:, 1], expected)


@pytest.mark.parametrize("raw", [-1e4, -10.0, 0.0, 10.0])
def test_mixture_scales_are_bounded_below_and_every_gradient_is_finite(raw):
    parameters = torch.full((4, 6, 1, 2), raw, dtype=torch.float32, requires_grad=True)
    x = torch.tensor([-1.0, 0.0, 0.99, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 1, 2).float()
    log_prob = lk.DiscretizedLogisticMixture(num_mixtures=2)(parameters).log_prob(x)
    (grad,) = torch.autograd.grad(log_prob.sum(), parameters)
    assert log_prob.isfinite().all()
    assert grad.isfinite().all()


# ---- bits per dimension ---------------------------------------------------------------------------------------------


def test_bits_of_dequantised_images_have_the_offset_of_their_density():
    """The uniform density on [-1, 1) is 1/2 in each dimension: exactly 8 bits."""
    nats = torch.tensor([SIZE * math.log(2.0)])
    assert lk.FixedGaussian().bits_per_dim(nats, spec("dequantized")).item() == pytest.approx(8.0, rel=1e-14)


def test_bits_of_levels_have_no_offset():
    """256 equally likely levels are exactly 8 bits."""
    nats = torch.tensor([SIZE * math.log(256.0)])
    bits = lk.DiscretizedLogisticMixture().bits_per_dim(nats, spec("uint8"))
    assert bits.item() == pytest.approx(8.0, rel=1e-14)


@pytest.mark.parametrize("name", ["FixedGaussian", "LearnedGaussian", "PixelGaussian", "Laplace"])
@pytest.mark.parametrize("values", ["uint8", "binary"])
def test_a_density_of_values_that_were_not_dequantised_has_no_bits(name, values):
    assert ALL[name]().bits_per_dim(torch.ones(1), spec(values)) is None


@pytest.mark.parametrize("values", ["uint8", "binary", "dequantized"])
def test_bernoulli_never_has_bits(values):
    assert lk.Bernoulli(soft_targets=True).bits_per_dim(torch.ones(1), spec(values)) is None


def test_dequantised_density_bounds_the_code_length_of_the_levels():
    """Theis et al. 2016: -log2 P(u) <= E bits of a density, P(u) being its mass over the level's cell."""
    u = torch.tensor(140.0)
    mean, variance = 0.05, 0.1**2
    likelihood = lk.FixedGaussian(variance)
    noise = (torch.arange(2000) + 0.5) / 2000  # quadrature of the expectation over the noise
    x = dequantize(u, noise).reshape(-1, 1, 1, 1)
    nats = -likelihood(torch.full((2000, 1, 1, 1), mean)).log_prob(x).mean()
    bits = likelihood.bits_per_dim(nats, spec("dequantized", shape=(1, 1, 1)))
    cdf = torch.distributions.Normal(mean, math.sqrt(variance)).cdf
    code = -(cdf((u + 1) / 128 - 1) - cdf(u / 128 - 1)).log2()
    slope = (x.mean() - mean) / variance / 128  # of the log-density, over one cell
    jensen_gap = slope**2 / 24 / math.log(2)  # half the variance of a linear function
    assert code < bits
    assert bits - code == pytest.approx(jensen_gap.item(), rel=0.01)


# ---- what they say --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", ["uint8", "dequantized"])
def test_bernoulli_refuses_grey_images_unless_told_otherwise(values):
    assert lk.Bernoulli().problems(spec(values)) == [
        f"Bernoulli: model.likelihood is for binary values, the data are {values!r}."
        " Binarise the data (e.g. data.init_args.binarization: dynamic), set"
        " model.init_args.likelihood.init_args.soft_targets: true (a cross-entropy, no likelihood), or take a Gaussian."
    ]
    soft = lk.Bernoulli(soft_targets=True)
    assert soft.problems(spec(values)) == []
    assert not soft.is_probability(spec(values))
    assert soft.is_probability(spec("binary"))


@pytest.mark.parametrize("values", ["binary", "dequantized"])
def test_mixture_refuses_images_that_are_not_levels(values):
    assert lk.DiscretizedLogisticMixture().problems(spec(values)) == [
        f"DiscretizedLogisticMixture: model.likelihood is for uint8 values, the data are {values!r}."
        " It gives a mass to each of the 256 levels: turn dequantize and binarization off in data.init_args."
    ]


@pytest.mark.parametrize("name", ["FixedGaussian", "LearnedGaussian", "PixelGaussian", "Laplace"])
@pytest.mark.parametrize("values", ["uint8", "binary", "dequantized"])
def test_densities_take_all_images(name, values):
    assert ALL[name]().problems(spec(values)) == []
    assert ALL[name]().is_probability(spec(values))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lk.FixedGaussian(variance=0.0), "FixedGaussian: variance (=0.0) must be at least 1e-13"),
        (
            lambda: lk.LearnedGaussian(initial_variance=-1.0),
            "LearnedGaussian: initial_variance (=-1.0) must be",
        ),
        (lambda: lk.PixelGaussian(min_std=0.0), "PixelGaussian: min_std (=0.0) must be at least 1e-06"),
        (lambda: lk.Laplace(scale=float("nan")), "Laplace: scale (=nan) must be a finite number"),
    ],
)
def test_numbers_that_must_be_positive(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(message)


def test_mixture_needs_a_component():
    with pytest.raises(ValueError) as error:
        lk.DiscretizedLogisticMixture(num_mixtures=0)
    assert str(error.value) == "DiscretizedLogisticMixture: num_mixtures (=0) must be at least 1."


def test_what_is_learned_is_in_the_checkpoint_and_what_is_given_is_not():
    assert set(lk.LearnedGaussian().state_dict()) == {"log_var"}
    assert lk.FixedGaussian().state_dict() == {}
    assert lk.Laplace(learned=False).state_dict() == {}
    assert [p.requires_grad for p in lk.Laplace().parameters()] == [True]
