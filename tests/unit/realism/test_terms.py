"""Perceptual and adversarial terms: values and gradients against plain autograd, and what reaches whom."""

import math
from functools import partial

import pytest
import torch
from realism_helpers import SHAPE, Squares, gradients, images, new_adversary, new_autoencoder, new_realism

from lit_vae.images import ImageSpec
from lit_vae.likelihoods import Bernoulli, FixedGaussian, Laplace, LearnedGaussian
from lit_vae.networks import PatchDiscriminator
from lit_vae.objectives import IWAE, DReG
from lit_vae.objectives.adversarial import gradient_norms, graft
from lit_vae.realism import R1, LeCAM, Perceptual, Realism
from lit_vae.schedules import LinearWarmup

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def parts(model, x):
    """What a training step has of a batch: ``decoded.mean``, distortion and the last layer."""
    y = torch.full((len(x),), -1)
    z = model.encode(x, y).mean
    decoded = model.decode(z, y)
    return decoded.mean, -decoded.log_prob(x), model.decoder.last_layer


def added_terms(model, x, step=10):
    x_hat, distortion, last = parts(model, x)
    return model.realism(x, x_hat, distortion, model.likelihood.temperature, last, step), x_hat, distortion, last


# ---- grafting -------------------------------------------------------------------------------------------------------


def test_a_graft_has_the_value_and_the_gradient_of_the_graph_itself():
    network = torch.nn.Conv2d(1, 3, 3)

    def value(x):
        return network(x).square().flatten(1).mean(1)

    x = images().requires_grad_()
    weights = torch.rand(len(x))
    (expected,) = torch.autograd.grad((weights * value(x)).sum(), x)
    grafted = graft(value, x)
    torch.testing.assert_close(grafted, value(x), **EXACT)
    for _ in range(2):  # as often as one likes
        (found,) = torch.autograd.grad((weights * grafted).sum(), x, retain_graph=True)
        torch.testing.assert_close(found, expected, **EXACT)


def test_a_graft_passes_backward_through_its_network_once_and_not_into_its_weights():
    network, passes = torch.nn.Conv2d(1, 3, 3), []
    network.register_full_backward_hook(lambda *_: passes.append(1))
    x = images().requires_grad_()
    grafted = graft(lambda image: network(image).flatten(1).sum(1), 2.0 * x)
    assert len(passes) == 1
    gradient_norms([grafted, grafted], x)
    grafted.sum().backward()
    assert len(passes) == 1
    assert not gradients(network)


def test_nothing_is_grafted_without_gradients():
    with torch.no_grad():
        assert not graft(lambda image: image.flatten(1).sum(1), images()).requires_grad


# ---- the perceptual term --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("likelihood", "temperature"), [
    (partial(FixedGaussian, 0.5), 1.0), (partial(LearnedGaussian, 0.05), 0.1), (partial(Laplace, 0.3), 0.3),
    (Bernoulli, 1.0),
])  # fmt: skip
def test_the_weight_is_in_units_of_the_likelihoods_error(likelihood, temperature):
    realism = Realism(Perceptual(Squares(), 0.7))
    x, x_hat = images(), images(seed=2)
    terms = realism.evaluate(x, x_hat, likelihood().temperature)
    torch.testing.assert_close(terms["perceptual"], Squares()(x, x_hat), **EXACT)
    torch.testing.assert_close(
        terms["perceptual_nats"], 0.7 * 64 / temperature * Squares()(x, x_hat), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "likelihood", [partial(FixedGaussian, 0.2), partial(LearnedGaussian, 0.05), partial(Laplace, 0.3)]
)
def test_the_temperature_divides_the_error(likelihood):
    """-log p is linear in the error with slope 1 / t, whichever the error."""
    likelihood, x, zero = likelihood(), images(), torch.zeros(6, *SHAPE)
    error = x.abs() if isinstance(likelihood, Laplace) else x.square()
    at_x, at_zero = -likelihood(zero).log_prob(x), -likelihood(zero).log_prob(zero)
    torch.testing.assert_close(at_x - at_zero, error.flatten(1).sum(1) / likelihood.temperature, **EXACT)


def test_the_loss_is_the_published_one_with_a_learned_log_variance():
    """``sum (|x - x_hat| + w LPIPS) / exp(s) + s`` of generative-models, but for the constant D log 2."""
    model = new_autoencoder(Realism(Perceptual(Squares(), 0.7)))
    x = images()
    found, x_hat, distortion, _ = added_terms(model, x)
    s = model.likelihood.log_scale
    per_value = ((x - x_hat).abs() + 0.7 * Squares()(x, x_hat)[:, None, None, None]) / s.exp() + s
    expected = per_value.flatten(1).sum(1) + 64 * math.log(2.0)
    torch.testing.assert_close(distortion + found.terms["loss"], expected, **EXACT)
    ours, theirs = (
        torch.autograd.grad(t.mean(), s, retain_graph=True)[0] for t in (distortion + found.terms["loss"], expected)
    )
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert ours.abs() > 1e-3


# ---- the adversary --------------------------------------------------------------------------------------------------


def test_each_player_gets_its_own_gradient_and_none_of_the_others():
    x = images()
    model = new_autoencoder(new_realism())
    added_terms(model, x)[0].terms["loss"].mean().backward()
    assert any(name.startswith("encoder") for name in gradients(model))
    assert not gradients(model.realism.adversary)
    model.zero_grad()
    added_terms(model, x)[0].other_loss.backward()
    assert set(gradients(model)) == {
        f"realism.adversary.{name}" for name, _ in model.realism.adversary.named_parameters()
    }


@pytest.mark.parametrize("normalization", ["group", "batch", "none"])
def test_the_gradients_are_those_of_the_losses_written_plainly(normalization):
    """No graft, no component: eq. 6 and 7 of Esser et al. with torch.autograd alone."""
    x = images()
    discriminator = partial(PatchDiscriminator, width=4, layers=1, normalization=normalization)
    model = new_autoencoder(new_realism(discriminator=discriminator, max_adaptive_weight=1e9))
    discriminator = model.realism.adversary.discriminator
    x_hat, distortion, last = parts(model, x)
    nll = (distortion + 0.7 * 64 / 0.3 * Squares()(x, x_hat)).mean()
    generator = -discriminator(x_hat).mean()
    norms = [torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (nll, generator)]
    weight = norms[0] / (norms[1] + 1e-4)
    players = [p for n, p in model.named_parameters() if n.startswith(("encoder", "decoder"))]
    expected = torch.autograd.grad(nll + 0.5 * weight.detach() * generator, players)
    real, fake = discriminator(x), discriminator(x_hat.detach())
    of_d = 0.5 * ((1 - real).relu() + (1 + fake).relu()).mean()
    expected_d = torch.autograd.grad(of_d, list(discriminator.parameters()))

    found, _, distortion, _ = added_terms(model, x)
    assert float(found.scalars["adaptive_weight"]) == pytest.approx(float(weight), rel=1e-10)
    ours = torch.autograd.grad((distortion + found.terms["loss"]).mean(), players)
    theirs = torch.autograd.grad(found.other_loss, list(discriminator.parameters()))
    for a, b in zip([*ours, *theirs], [*expected, *expected_d], strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_the_discriminator_learns_before_the_decoder_feels_it():
    realism = new_realism(weight=LinearWarmup(steps=10, end=0.5, delay=20), start_step=5)
    model, x = new_autoencoder(realism), images()
    for step, learns, weight in ((4, False, 0.0), (5, True, 0.0), (20, True, 0.0), (25, True, 0.25), (40, True, 0.5)):
        found = added_terms(model, x, step)[0]
        assert isinstance(found.other_loss, torch.Tensor) == learns
        assert ("discriminator" in found.terms) == learns
        assert float(found.scalars.get("adversarial_weight", 0.0)) == weight
        assert ("adversarial" in found.terms) == (weight > 0.0)


def test_lambda_is_capped_or_left_out():
    x = images()
    capped = added_terms(new_autoencoder(new_realism(max_adaptive_weight=0.01)), x)[0]
    assert float(capped.scalars["adaptive_weight"]) == pytest.approx(0.01)
    found = added_terms(new_autoencoder(new_realism(max_adaptive_weight=None)), x)[0]
    torch.testing.assert_close(found.terms["adversarial_nats"], 0.5 * found.terms["adversarial"], **EXACT)


def test_logged_terms_add_up():
    found = added_terms(new_autoencoder(new_realism()), images())[0]
    torch.testing.assert_close(
        found.terms["loss"], found.terms["perceptual_nats"] + found.terms["adversarial_nats"], **EXACT
    )
    scalars, terms = found.scalars, found.terms
    weighted = scalars["adversarial_weight"] * scalars["adaptive_weight"] * terms["adversarial"]
    torch.testing.assert_close(terms["adversarial_nats"], weighted, **EXACT)
    torch.testing.assert_close(terms["logit_gap"], terms["logits_real"] - terms["logits_fake"], **EXACT)


def test_accuracy_counts_patches_on_the_right_side_of_the_losss_threshold():
    adversary = new_adversary()
    adversary.build(SHAPE)
    logits = iter(torch.tensor([[1.0, -1.0], [-0.2, 0.1]]).reshape(2, 2, 1, 1, 1))  # of images, of reconstructions
    adversary.logits = lambda _: next(logits)
    _, terms, _ = adversary.judge(images(2), images(2), 0)
    assert terms["discriminator_accuracy"].tolist() == [1.0, 0.0]


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_bad_arguments_are_refused():
    for make, text in (
        (Realism, "perceptual and adversary are both null"),
        (lambda: Perceptual(Squares(), 0.0), r"weight \(=0.0\) must be greater than 0"),
        (lambda: new_adversary(start_step=-1), r"start_step \(=-1\)"),
        (lambda: new_adversary(max_adaptive_weight=0.0), r"max_adaptive_weight \(=0.0\)"),
    ):
        with pytest.raises(ValueError, match=text):
            make()


def problems(model):
    return "\n".join([*model.problems(ImageSpec(*SHAPE, 0, "dequantized")), *model.loss_problems()])


def test_a_decoder_that_sees_an_untrained_discriminator_is_a_problem():
    assert "weight is positive from step 0" in problems(new_autoencoder(new_realism(start_step=100)))
    late = new_realism(weight=LinearWarmup(steps=10, delay=100), start_step=100)
    assert problems(new_autoencoder(late)) == ""
    early = new_realism(weight=LinearWarmup(steps=10, delay=50), start_step=100)
    assert "from step 51, but the discriminator is trained from start_step (=100)" in problems(new_autoencoder(early))


@pytest.mark.parametrize("objective", [IWAE, DReG])
def test_an_objective_that_is_no_sum_of_rate_and_distortion_is_a_problem(objective):
    name = objective.__name__
    assert f"{name} is no sum of rate and distortion" in problems(
        new_autoencoder(new_realism(), objective=objective(2))
    )
    assert problems(new_autoencoder(None, objective=objective(2))) == ""


def test_a_decoder_without_a_last_layer_is_a_problem():
    model = new_autoencoder(new_realism())
    model.decoder = torch.nn.Identity()
    assert "needs Identity to name its last layer" in problems(model)
    model.realism.adversary.max_adaptive_weight = None
    assert problems(model) == ""
    x = images()
    found = model.realism(x, x.clone().requires_grad_(), torch.ones(6), torch.ones(()), None, 10)
    assert found.terms["loss"].requires_grad


def test_penalties_are_in_the_loss_and_in_the_log():
    model = new_autoencoder(new_realism(penalties=[R1(weight=2.0, every=5), LeCAM()]))
    found = added_terms(model, images())[0]
    extra = found.scalars["penalty_r1"] + found.scalars["penalty_lecam"]
    assert found.scalars["penalty_r1"] > 0
    torch.testing.assert_close(found.other_loss, found.terms["discriminator"].mean() + extra, **EXACT)


def test_a_misspelt_setting_of_the_discriminators_optimizer_is_refused():
    model = new_autoencoder(new_realism(optimizer={"learning_rate": 1e-4, "betas": [0.5, 0.9]}))
    with pytest.raises(ValueError, match=r"Adversary: optimizer \(=\['learning_rate'\]\) must hold settings of Adam"):
        model.configure_optimizers()
