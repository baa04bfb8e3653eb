"""HierarchicalVAE with real networks: where it starts, what depends on what, and that the latent u goes both ways."""

import copy
import math

import pytest
import torch
from hierarchy_helpers import chain, new_model, top_down, vector_and_map
from torch import Generator, nn

from lit_vae.hierarchies import Absolute, LadderMerge, MarkovianBottomUp, ResidualNormal
from lit_vae.images import Batch
from lit_vae.networks import NVAECell, VDVAEBlock
from lit_vae.networks.layers import ResidualBlock
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, FreeBitsPerLevel, SpectralPenalty

EXACT = {"rtol": 1e-10, "atol": 1e-10}
IMAGE, MAPS, VECTORS = (1, 8, 8), [(2, 2, 2), (3, 2, 2), (1, 4, 4)], [(2,), (5,)]
BLOCKS = {"VDVAE": VDVAEBlock, "NVAE": NVAECell, "residual": ResidualBlock}
POSTERIORS = [Absolute(), LadderMerge(), ResidualNormal()]


def awake(model):
    """Give the layers that start at zero some weight, as training does."""
    for parameter in model.parameters():
        if (parameter == 0.0).all():
            nn.init.normal_(parameter, std=0.2)
    return model


def made(wiring, **given):
    if wiring == "Markovian":
        return new_model(IMAGE, VECTORS, chain([7]), **given)
    if wiring == "vector and map":
        return new_model(IMAGE, [(3,), (2, 3, 2)], vector_and_map(), **given)
    return awake(new_model(IMAGE, MAPS, top_down(ResidualNormal(), BLOCKS[wiring]), **given))


WIRINGS = [*BLOCKS, "Markovian", "vector and map"]


@pytest.fixture(params=WIRINGS)
def model(request):
    return made(request.param)


def batch(n: int = 4) -> Batch:
    return Batch(torch.rand(n, *IMAGE) * 2 - 1, torch.arange(n) % 3)


def draws(n: int = 4, seed: int = 0) -> Draws:
    return Draws(seed, 0, torch.arange(n))


# ---- the start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_prior_starts_as_a_standard_normal_and_no_level_is_dead(block, posterior):
    model = new_model(IMAGE, MAPS, top_down(posterior, block))
    x, y = batch()
    levels, _ = model.path(model.encode(x, y), y, 2)
    for level in levels:
        assert torch.equal(level.prior.mean, torch.zeros_like(level.z))
        assert torch.equal(level.prior.std, torch.ones_like(level.z))
        assert (level.posterior.mean.std(1) > 0.0).all()  # it sees the image
    assert torch.equal(model.decode(u := torch.randn(4, 24 + 12), y).mean, model.decode(u, y).mean)


def test_blocks_of_a_deep_path_start_small():
    shallow, deep = (new_model(IMAGE, [(1, 4, 4)] * n, top_down(Absolute(), VDVAEBlock, [64])) for n in (1, 25))
    ratio = [m.hierarchy.steps[0].blocks.blocks[0].last.weight.std().item() for m in (shallow, deep)]
    assert ratio[0] / ratio[1] == pytest.approx(5.0, rel=0.2)


# ---- the path -------------------------------------------------------------------------------------------------------


def test_draws_at_once_are_the_draws_one_by_one(model):
    x, y = batch()
    encoded = model.encode(x, y)
    levels, decoded = model.path(encoded, y, 3, draws())
    given = draws()
    for i in range(3):
        of_one, decoded_one = model.path(encoded, y, 1, given, first=i)
        torch.testing.assert_close(decoded.mean[i], decoded_one.mean[0], **EXACT)
        for level, own in zip(levels, of_one, strict=True):
            torch.testing.assert_close(level.z[i], own.z[0], **EXACT)
            torch.testing.assert_close(level.posterior.mean[i], own.posterior.mean[0], **EXACT)
            torch.testing.assert_close(level.prior.log_var[i], own.prior.log_var[0], **EXACT)


def test_an_image_of_the_batch_does_not_see_the_others(model):
    """In train mode either: there are no batch statistics."""
    model.train()
    x, y = batch()
    together = model.step(Batch(x, y), None, draws()).terms
    alone = model.step(Batch(x[:1], y[:1]), None, draws(1)).terms
    for name, value in alone.items():
        torch.testing.assert_close(value, together[name][:1], **EXACT)


def test_the_bound_does_not_depend_on_the_chunks_of_its_draws(model):
    x, y = batch()
    one, other = (model.importance_weighted_nll(x, y, 6, chunk, draws()) for chunk in (6, 4))
    torch.testing.assert_close(one, other, **EXACT)


def test_a_lower_level_depends_on_the_level_above(model):
    """And a top-down posterior on the draws above; the Markovian one on the draws below."""
    x, y = batch()
    encoded = model.encode(x, y)

    def prior_means(shift):
        levels, _ = model.hierarchy.infer(encoded, None, 1, lambda level, q: q.mean + shift * (level == 0))
        return [level.prior.mean for level in levels]

    priors = prior_means(0.0), prior_means(1.0)
    assert torch.equal(priors[0][0], priors[1][0])
    assert (priors[0][1] != priors[1][1]).any()


@pytest.mark.parametrize("objective", [ELBO(), ELBO(num_samples=2, free_bits=FreeBitsPerLevel(0.1)), IWAE(3)])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_one_step_reaches_every_parameter(objective, num_classes):
    for model in (made(wiring, objective=objective, num_classes=num_classes) for wiring in WIRINGS):
        model.step(batch(8), 0, draws(8)).terms["loss"].mean().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad != 0.0).any(), name


def test_the_terms_are_those_of_the_levels(model):
    x, y = batch()
    terms = model.step(Batch(x, y), None, draws()).terms
    levels, decoded = model.path(model.encode(x, y), y, 1, draws())
    assert tuple(terms) == model.term_names
    assert [f"rate_{i}" for i in range(len(levels))] == [name for name in model.term_names if "rate_" in name]
    for i, level in enumerate(levels):
        q, p = level.posterior, level.prior
        torch.testing.assert_close(terms[f"rate_{i}"], level.rate())
        if level.closed_form:
            kl = torch.distributions.kl_divergence(
                torch.distributions.Normal(q.mean, q.std), torch.distributions.Normal(p.mean, p.std)
            )
            torch.testing.assert_close(level.rate(), kl.mean(0).flatten(1).sum(1), **EXACT)
    torch.testing.assert_close(-terms["elbo"], terms["rate"] - decoded.log_prob(x)[0])
    markovian = isinstance(model.hierarchy, MarkovianBottomUp)
    assert [level.closed_form for level in levels] == [True, *[not markovian] * (len(levels) - 1)]


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_checkpointing_changes_no_number(block):
    losses, gradients = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = awake(new_model(IMAGE, MAPS, top_down(LadderMerge(), block, checkpointing=checkpointing)))
        loss = model.step(batch(), 0, draws()).terms["loss"].mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    torch.testing.assert_close(gradients[0], gradients[1], **EXACT)


# ---- the latent u ---------------------------------------------------------------------------------------------------


def test_u_is_standardised_by_the_prior_and_decodes_to_the_path(model):
    x, y = batch()
    encoded = model.encode(x, y)
    levels, parameters = model.hierarchy.infer(encoded, None, 1, lambda _, q: q.mean)
    u = model.embed(x, y)
    assert u.shape == (4, sum(math.prod(shape) for shape in model.hierarchy.latent_shapes))
    torch.testing.assert_close(model.decode(u, y).mean, parameters[0], rtol=1e-8, atol=1e-8)
    top = (levels[0].z - levels[0].prior.mean) / levels[0].prior.std
    torch.testing.assert_close(u[:, : model.level_sizes[0]], top[0].flatten(1), **EXACT)
    torch.testing.assert_close(model.reconstruct(x, y), parameters[0].clamp(-1, 1), rtol=1e-8, atol=1e-8)


def test_decoding_samples_is_decoding_each_of_them(model):
    _, y = batch()
    u = torch.randn(3, 4, *model.latent_shape)
    expected = torch.stack([model.decode(part, y).mean for part in u])
    torch.testing.assert_close(model.decode(u, y).mean, expected, **EXACT)


def test_the_temperature_is_one_number_or_one_for_each_level(model):
    def drawn(temperature):
        return model.sample_latents(5, None, temperature, Generator().manual_seed(1)).split(model.level_sizes, 1)

    warm, cold, top = drawn(1.0), drawn(0.5), drawn([2.0, *[0.0] * (model.num_levels - 1)])
    torch.testing.assert_close(torch.cat(cold, 1), 0.5 * torch.cat(warm, 1))
    torch.testing.assert_close(top[0], 2.0 * warm[0])
    assert not torch.cat(top[1:], 1).any()
    with pytest.raises(ValueError, match="shorter"):
        drawn([1.0])


def test_samples_spread_more_at_a_higher_temperature(model):
    """NVAE divided the noise by the temperature."""
    spread = [model.sample(500, None, t, Generator().manual_seed(0)).std(0).mean() for t in (0.0, 0.3, 1.0)]
    assert spread[0] < 1e-12
    assert spread[0] < spread[1] < spread[2]


def test_networks_that_fit_are_checked_without_a_trace(model):
    state = torch.get_rng_state()
    assert model.check_networks() == []
    assert torch.equal(state, torch.get_rng_state())


def test_the_label_reaches_the_posterior_the_prior_and_the_image():
    for model in (made(wiring, num_classes=3) for wiring in WIRINGS):
        x, y = batch()
        other = (y + 1) % 3
        first, second = (model.path(model.encode(x, labels), labels, 1, draws()) for labels in (y, other))
        assert (first[0][-1].posterior.mean != second[0][-1].posterior.mean).any()
        assert (first[0][-1].prior.mean != second[0][-1].prior.mean).any()
        u = torch.randn(4, *model.latent_shape)
        assert (model.decode(u, y).mean != model.decode(u, other).mean).any()


def test_the_label_changes_nothing_without_classes(model):
    x, y = batch()
    assert torch.equal(model.reconstruct(x, y), model.reconstruct(x, torch.full_like(y, -1)))


def test_the_spectral_penalty_is_in_the_training_loss_and_in_no_other_number():
    torch.manual_seed(0)
    plain = made("NVAE")
    model = new_model(IMAGE, MAPS, top_down(ResidualNormal(), NVAECell), spectral=SpectralPenalty(0.1))
    model.load_state_dict(plain.state_dict(), strict=False)
    penalty = copy.deepcopy(model.spectral)(model.hierarchy)
    images, losses = batch(), []
    for each in (plain, model):
        each.step_draws = draws
        losses.append(each.training_step(images, 0))
        for name, value in each.evaluation_terms(images, draws()).items():
            torch.testing.assert_close(value, plain.evaluation_terms(images, draws())[name], **EXACT)
    torch.testing.assert_close(losses[1], losses[0] + penalty, **EXACT)
    torch.testing.assert_close(model.last_terms, plain.last_terms, **EXACT)
    assert penalty > 0.1
