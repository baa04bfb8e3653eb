"""Priors: what they are, and to which parameters their gradient goes."""

import pytest
import torch

from lit_vae.distributions import DiagonalGaussian
from lit_vae.priors import ClassConditionalNormal, StandardNormal

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("shape", [[4], [2, 3, 3]])
def test_standard_normal_is_the_default_of_kl_whatever_the_label(shape):
    q = DiagonalGaussian(torch.randn(5, *shape), torch.randn(5, *shape))
    p = StandardNormal(shape)(torch.tensor([-1, 0, 3, 3, 9]))
    assert p.mean.shape == q.mean.shape
    torch.testing.assert_close(q.kl(p), q.kl(), rtol=1e-13, atol=1e-13)
    z = torch.randn(7, 5, *shape)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(2).sum(2)
    torch.testing.assert_close(p.log_prob(z), expected, rtol=1e-13, atol=1e-13)


def test_standard_normal_learns_nothing_and_saves_nothing():
    prior = StandardNormal([4])
    assert list(prior.parameters()) == []
    assert prior.state_dict() == {}


@pytest.mark.parametrize("shape", [[4], [2, 3, 3]])
def test_class_conditional_normal_starts_as_standard_normal(shape):
    y = torch.tensor([0, 2, 1])
    p, standard = ClassConditionalNormal(shape, 3)(y), StandardNormal(shape)(y)
    torch.testing.assert_close(p.kl(standard), torch.zeros(3), rtol=0, atol=0)


def test_class_conditional_normal_gives_each_image_the_parameters_of_its_class():
    prior = ClassConditionalNormal([4], 3)
    torch.nn.init.normal_(prior.mean)
    torch.nn.init.normal_(prior.log_var)
    p = prior(torch.tensor([2, 0]))
    torch.testing.assert_close(p.mean, torch.stack([prior.mean[2], prior.mean[0]]), rtol=0, atol=0)
    torch.testing.assert_close(p.log_var, torch.stack([prior.log_var[2], prior.log_var[0]]), rtol=0, atol=0)


def test_class_conditional_gradient_reaches_the_classes_present_and_no_others():
    prior = ClassConditionalNormal([4], 5)
    q = DiagonalGaussian(torch.randn(3, 4), torch.randn(3, 4))
    q.kl(prior(torch.tensor([1, 3, 1]))).sum().backward()
    for grad in (prior.mean.grad, prior.log_var.grad):
        assert [bool((row != 0.0).all()) for row in grad] == [False, True, False, True, False]
        assert (grad[[0, 2, 4]] == 0.0).all()


def test_class_conditional_optimum_is_the_aggregate_posterior_of_the_class():
    """d/d(mean, log_var) of the mean KL is zero where they are the moments of the mixture of posteriors."""
    q = DiagonalGaussian(torch.randn(6, 4), torch.randn(6, 4))
    prior = ClassConditionalNormal([4], 2)
    with torch.no_grad():
        mean = q.mean.mean(0)
        prior.mean[1] = mean
        prior.log_var[1] = (q.log_var.exp() + (q.mean - mean).square()).mean(0).log()
    q.kl(prior(torch.ones(6, dtype=torch.long))).mean().backward()
    torch.testing.assert_close(prior.mean.grad, torch.zeros(2, 4), rtol=0, atol=1e-14)
    torch.testing.assert_close(prior.log_var.grad, torch.zeros(2, 4), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [[], [2, 3]])
def test_wrong_shape(shape):
    with pytest.raises(ValueError) as error:
        StandardNormal(shape)
    assert str(error.value) == (
        f"StandardNormal: shape (={shape}) must be [d] for a vector or [c, h, w] for a map."
        " Set model.init_args.prior.init_args.shape."
    )


@pytest.mark.parametrize("shape", [[0], [2, 0, 3]])
def test_sizes_are_positive(shape):
    with pytest.raises(ValueError, match=r"^StandardNormal: shape \(=0\) must be at least 1\.$"):
        StandardNormal(shape)


def test_wrong_number_of_classes():
    with pytest.raises(ValueError) as error:
        ClassConditionalNormal([2], 0)
    assert str(error.value) == "ClassConditionalNormal: num_classes (=0) must be at least 1."
