"""The mixture of discretised logistics: a probability over 256 levels, its gradients, its samples, its mean."""

import math

import pytest
import torch
from logistic_mixtures import mixture
from torch import Generator

from lit_vae.distributions import DiscretizedLogisticMixture
from lit_vae.images import from_uint8

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1.0
DRAWS = 20_000


pytestmark = pytest.mark.usefixtures("float64")


def level_masses(distribution: DiscretizedLogisticMixture) -> torch.Tensor:
    """Probabilities of all 256 levels of a one-pixel grey image."""
    images = LEVELS.reshape(256, 1, 1, 1)
    parts = (distribution.logits, distribution.means, distribution.log_scales, distribution.coefficients)
    return DiscretizedLogisticMixture(*(p.expand(256, *p.shape) for p in parts)).log_prob(images).exp()


@pytest.mark.parametrize("seed", range(5))
def test_mixture_masses_of_all_levels_sum_to_one(seed):
    torch.manual_seed(seed)
    assert level_masses(mixture()).sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("mean", [-30.0, -1.0, 0.5, 1.0, 40.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 3.0])
def test_mixture_masses_sum_to_one_at_extreme_parameters(mean, log_scale):
    one = torch.ones(1, 1, 1)
    distribution = DiscretizedLogisticMixture(one, mean * one[None], log_scale * one[None], torch.zeros(1, 0, 1, 1))
    assert level_masses(distribution).sum().item() == pytest.approx(1.0, abs=1e-12)


def test_mixture_masses_are_differences_of_the_distribution_function():
    distribution = mixture()
    weights = distribution.logits.softmax(0).flatten()
    means, scales = distribution.means.flatten(), distribution.log_scales.exp().flatten()
    edges = (LEVELS[:-1] + LEVELS[1:]) / 2.0
    cdf = (torch.sigmoid((edges[:, None] - means) / scales) * weights).sum(1)
    expected = torch.diff(torch.cat([torch.zeros(1), cdf, torch.ones(1)]))
    torch.testing.assert_close(level_masses(distribution), expected, rtol=1e-9, atol=1e-15)


def test_mixture_open_bins_are_those_of_levels_0_and_255_alone():
    """A logistic whose mass lies beyond the last edge: level 254 must not get any of it (as it does in NVAE)."""
    one = torch.ones(1, 1, 1)
    for mean, level in ((3.0, 255), (-3.0, 0)):
        distribution = DiscretizedLogisticMixture(one, mean * one[None], -3.0 * one[None], torch.zeros(1, 0, 1, 1))
        masses = level_masses(distribution)
        assert masses[level].item() == pytest.approx(1.0, abs=1e-12)
        assert masses[254 if level == 255 else 1].item() < 1e-12


def test_mixture_levels_of_float32_images_fall_into_the_same_bins():
    """``from_uint8`` rounds in float32; the edges must be far enough from every level for that."""
    distribution = mixture(dtype=torch.float32)
    parts = (distribution.logits, distribution.means, distribution.log_scales, distribution.coefficients)
    many = DiscretizedLogisticMixture(*(p.expand(256, *p.shape) for p in parts))
    single = many.log_prob(from_uint8(torch.arange(256)).reshape(256, 1, 1, 1))
    double = DiscretizedLogisticMixture(*(p.double().expand(256, *p.shape) for p in parts))
    exact = double.log_prob(LEVELS.reshape(256, 1, 1, 1))
    torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=1e-5)


def test_mixture_of_three_channels_is_normalised_channel_by_channel():
    """Summed over blue, P(r, g, b) is P(r, g); summed over green, that is P(r); summed over red, 1."""
    torch.manual_seed(3)
    distribution = mixture(channels=3)
    d = distribution

    def first(channels):
        """The mixture over the first channels alone."""
        number = channels * (channels - 1) // 2
        return DiscretizedLogisticMixture(d.logits, d.means[:, :channels], d.log_scales[:, :channels],
                                          d.coefficients[:, :number])  # fmt: skip

    def log_prob(mixture, images):
        parts = (mixture.logits, mixture.means, mixture.log_scales, mixture.coefficients)
        return DiscretizedLogisticMixture(*(p.expand(len(images), *p.shape) for p in parts)).log_prob(images)

    earlier = torch.empty(1, 0)
    for channels in (1, 2, 3):
        candidates = torch.cat([earlier.expand(256, -1), LEVELS[:, None]], 1).reshape(256, channels, 1, 1)
        total = log_prob(first(channels), candidates).logsumexp(0)
        expected = torch.zeros(())
        if channels > 1:
            expected = log_prob(first(channels - 1), earlier.reshape(1, channels - 1, 1, 1))[0]
        torch.testing.assert_close(total, expected, rtol=0, atol=1e-12)
        earlier = torch.cat([earlier, LEVELS[[(37, 0, 0)[channels - 1]]].reshape(1, 1)], 1)


def test_mixture_channels_depend_on_earlier_ones_in_the_documented_order():
    """PixelCNN++, eq. 3: green's mean moves by c0 r, blue's by c1 r + c2 g, with the coefficients in this order."""
    logits, log_scales = torch.zeros(1, 1, 1), torch.full((1, 3, 1, 1), -4.0)
    means, coefficients = torch.tensor([0.1, 0.2, -0.1]), torch.tensor([0.5, -0.3, 0.25])
    x = from_uint8(torch.tensor([200, 90, 30])).double()
    shifted = means.clone()
    shifted[1] += coefficients[0] * x[0]
    shifted[2] += coefficients[1] * x[0] + coefficients[2] * x[1]
    chained = DiscretizedLogisticMixture(
        logits, means.reshape(1, 3, 1, 1), log_scales, coefficients.reshape(1, 3, 1, 1)
    )
    independent = DiscretizedLogisticMixture(logits, shifted.reshape(1, 3, 1, 1), log_scales, torch.zeros(1, 3, 1, 1))
    image = x.reshape(3, 1, 1)
    torch.testing.assert_close(chained.log_prob(image), independent.log_prob(image), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 7.0, 30.0])
@pytest.mark.parametrize("mean", [-1e3, -1.0, 1e-3, 1.0, 1e3])
def test_mixture_stays_finite_with_finite_gradients(dtype, log_scale, mean):
    parameters = [
        torch.zeros(256, 2, 1, 1, dtype=dtype),
        torch.full((256, 2, 1, 1, 1), mean, dtype=dtype),
        torch.full((256, 2, 1, 1, 1), log_scale, dtype=dtype),
        torch.zeros(256, 2, 0, 1, 1, dtype=dtype),
    ]
    leaves = [p.requires_grad_() for p in parameters]
    log_prob = DiscretizedLogisticMixture(*leaves).log_prob(LEVELS.to(dtype).reshape(256, 1, 1, 1))
    assert log_prob.isfinite().all()
    for grad in torch.autograd.grad(log_prob.sum(), leaves[:3]):
        assert grad.isfinite().all()


def test_mixture_gradients_are_those_of_finite_differences():
    d = mixture(channels=3, batch=(2,), size=(1, 2), components=2)
    x = from_uint8(torch.randint(256, (2, 3, 1, 2))).double()
    x[0, :, 0, 0] = torch.tensor([-1.0, 1.0, -1.0])  # both open bins
    leaves = [t.detach().requires_grad_() for t in (d.logits, d.means, d.log_scales, d.coefficients)]
    assert torch.autograd.gradcheck(lambda *p: DiscretizedLogisticMixture(*p).log_prob(x), leaves)
    assert torch.autograd.gradcheck(lambda *p: DiscretizedLogisticMixture(*p).mean, leaves)


def test_mixture_samples_lie_on_the_levels_with_their_frequencies():
    torch.manual_seed(2)
    distribution = mixture()
    masses = level_masses(distribution)
    parts = (distribution.logits, distribution.means, distribution.log_scales, distribution.coefficients)
    many = DiscretizedLogisticMixture(*(p.expand(DRAWS, *p.shape) for p in parts))
    x = many.sample(Generator().manual_seed(1)).flatten()
    indices = ((x + 1.0) * 127.5).round().long()
    assert torch.equal(LEVELS[indices], x)
    counts = torch.bincount(indices, minlength=256).double()
    tested = masses * DRAWS > 5.0  # Pearson's chi^2 with the rare levels pooled
    observed = torch.cat([counts[tested], counts[~tested].sum()[None]])
    expected = DRAWS * torch.cat([masses[tested], masses[~tested].sum()[None]])
    chi2 = ((observed - expected).square() / expected).sum()
    freedom = len(expected) - 1
    assert abs(chi2 - freedom) < 3.0 * math.sqrt(2.0 * freedom)


def test_mixture_samples_of_colour_keep_the_dependence_between_channels():
    """Mean of -log P of own samples is the entropy; that of images with a channel shuffled is larger."""
    torch.manual_seed(5)
    logits, means = torch.zeros(1, 1, 1), torch.tensor([0.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    log_scales, coefficients = torch.full((1, 3, 1, 1), -2.0), torch.tensor([0.9, 0.0, 0.9]).reshape(1, 3, 1, 1)
    parts = (logits, means, log_scales, coefficients)
    x = DiscretizedLogisticMixture(*(p.expand(DRAWS, *p.shape) for p in parts)).sample(Generator().manual_seed(1))
    red, green, blue = x.flatten(1).unbind(1)
    slope = lambda a, b: ((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum()  # noqa: E731
    for before, after in ((red, green), (green, blue)):
        residual = after - 0.9 * before
        standard_error = residual.std() / (before.std() * math.sqrt(DRAWS))
        assert abs(slope(before, after) - 0.9) < 3.0 * standard_error


@pytest.mark.parametrize("seed", range(4))
def test_mixture_mean_of_a_grey_pixel_is_the_expectation_over_levels(seed):
    """Open bins included; what is left is the rounding to levels, at most half of one for narrow logistics."""
    torch.manual_seed(seed)
    distribution = mixture()
    exact = (level_masses(distribution) * LEVELS).sum()
    wide = distribution.log_scales.exp().min() > 2.0 / 255.0
    assert abs(distribution.mean.item() - exact) < (1e-6 if wide else 1.0 / 255.0)


def test_mixture_mean_accounts_for_mass_beyond_the_ends():
    """Half of the mass at -1 (a component far below) and half around 0.5: the mean is -0.25, not a clamped -1."""
    means = torch.tensor([-3.0, 0.5]).reshape(2, 1, 1, 1)
    distribution = DiscretizedLogisticMixture(
        torch.zeros(2, 1, 1), means, torch.full((2, 1, 1, 1), -5.0), torch.zeros(2, 0, 1, 1)
    )
    assert distribution.mean.item() == pytest.approx(-0.25, abs=1e-12)


def test_mixture_mean_of_colour_is_that_of_samples_where_no_mass_is_beyond_the_ends():
    logits = torch.tensor([0.3, -0.2]).reshape(2, 1, 1)
    means = torch.tensor([[0.1, -0.2, 0.2], [-0.3, 0.1, 0.0]]).reshape(2, 3, 1, 1)
    log_scales = torch.full((2, 3, 1, 1), -4.0)
    coefficients = torch.tensor([[0.5, -0.4, 0.3], [-0.5, 0.2, 0.6]]).reshape(2, 3, 1, 1)
    parts = (logits, means, log_scales, coefficients)
    many = DiscretizedLogisticMixture(*(p.expand(DRAWS, *p.shape) for p in parts))
    x = many.sample(Generator().manual_seed(7)).flatten(1)
    assert ((x.mean(0) - many.mean[0].flatten()).abs() < 3.0 * x.std(0) / math.sqrt(DRAWS)).all()
