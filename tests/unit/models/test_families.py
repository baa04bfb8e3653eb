"""AE, VAE and CVAE: the interface that everything else relies on, and what they say of unfit data."""

import math
import warnings
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Generator, nn

from lit_vae import likelihoods as lk
from lit_vae.images import Batch, ImageSpec
from lit_vae.models import AE, CVAE, PCA, VAE
from lit_vae.networks import MLP, ConvDecoder, ConvEncoder
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE
from lit_vae.priors import ClassConditionalNormal

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SHAPE = (1, 3, 4)
FAMILIES = {"AE": AE, "VAE": VAE, "CVAE": CVAE}


def spec(values="dequantized", num_classes=4, shape=SHAPE) -> ImageSpec:
    return ImageSpec(*shape, num_classes, values)


def batch(number: int = 6) -> Batch:
    return Batch(torch.rand(number, *SHAPE) * 2 - 1, torch.arange(number) % 4)


def convolutional(family: str, new_model, latent=(2, 4, 4)):
    networks = {"encoder": partial(ConvEncoder, width=4, multipliers=[1, 1]),
                "decoder": partial(ConvDecoder, width=4, multipliers=[1, 1])}  # fmt: skip
    if family == "AE":
        return new_model(family, (3, 8, 8), latent_shape=list(latent), **networks)
    from lit_vae.priors import StandardNormal

    return new_model(family, (3, 8, 8), prior=StandardNormal(list(latent)), **networks)


def random_prior(latent: int = 2) -> ClassConditionalNormal:
    prior = ClassConditionalNormal([latent], 4)
    nn.init.normal_(prior.mean)
    nn.init.normal_(prior.log_var)
    return prior


# ---- latents and images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["VAE", "CVAE"])
def test_decoding_samples_is_decoding_each_of_them(family, new_model):
    model = new_model(family)
    _, y = batch()
    z = torch.randn(3, 6, 2)
    together = model.decode(z, y).mean
    assert together.shape == (3, 6, *SHAPE)
    torch.testing.assert_close(together, torch.stack([model.decode(part, y).mean for part in z]), **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_as_latents(family, new_model):
    model = convolutional(family, new_model)
    x, y = torch.rand(2, 3, 8, 8) * 2 - 1, torch.tensor([0, 3])
    z = torch.stack([model.embed(x, y), torch.randn(2, 2, 4, 4)])
    if family != "AE":  # which has one latent for each image
        together = model.decode(z, y).mean
        torch.testing.assert_close(together, torch.stack([model.decode(part, y).mean for part in z]), **EXACT)
    assert model.check_networks() == []
    assert model.sample(5).shape == (5, 3, 8, 8)


@pytest.mark.parametrize("family", ["VAE", "CVAE"])
def test_sampling_at_temperature_zero_is_the_decoder_at_the_mean_of_the_prior(family, new_model):
    prior = {"prior": random_prior()} if family == "CVAE" else {}
    model = new_model(family, **prior)
    y = torch.tensor([3, 1, 1])
    mean = prior["prior"].mean[y] if prior else torch.zeros(3, 2)
    expected = model.decode(mean, y).mean.clamp(-1.0, 1.0)
    torch.testing.assert_close(model.sample(3, y, temperature=0.0), expected, **EXACT)


def test_temperature_scales_the_deviation_of_the_prior(new_model):
    model = new_model("CVAE", prior=random_prior())
    y = torch.tensor([3, 1, 1])
    mean = model.prior(y).mean
    cold, warm = (model.sample_latents(3, y, t, Generator().manual_seed(1)) - mean for t in (0.5, 2.0))
    torch.testing.assert_close(4.0 * cold, warm, **EXACT)
    eps = torch.randn(3, 2, generator=Generator().manual_seed(1))
    torch.testing.assert_close(warm, 2.0 * (0.5 * model.prior.log_var[y]).exp() * eps, **EXACT)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generator_makes_samples_repeatable_and_leaves_the_global_state_alone(family, new_model):
    model = new_model(family)
    state = torch.get_rng_state()
    one, same, other = (model.sample(4, generator=Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_stay_in_range(family, new_model):
    model = new_model(family)
    with torch.no_grad():
        model.decoder.layers[-1].bias.copy_(torch.linspace(-5, 5, 12))
    x, y = batch()
    for images in (model.reconstruct(x, y), model.sample(6, y), model.predict_step(Batch(x, y), 0)["x_hat"]):
        assert images.abs().max() == 1.0
    torch.testing.assert_close(model.reconstruct(x, y), model.decode(model.embed(x, y), y).mean.clamp(-1, 1), **EXACT)


def test_without_labels_cvae_takes_the_classes_in_turn_and_vae_none(new_model):
    assert new_model("CVAE").labels_for(6, None).tolist() == [0, 1, 2, 3, 0, 1]
    assert new_model("VAE").labels_for(3, None).tolist() == [-1, -1, -1]
    assert new_model("CVAE").labels_for(2, torch.tensor([3, 3])).tolist() == [3, 3]


def test_the_label_changes_every_part_of_a_cvae(new_model):
    model = new_model("CVAE", prior=random_prior())
    x, y = batch()
    other = (y + 1) % 4
    z = torch.randn(6, 2)
    assert (model.encode(x, y).mean != model.encode(x, other).mean).all()
    assert (model.encode(x, y).log_var != model.encode(x, other).log_var).all()
    assert (model.decode(z, y).mean != model.decode(z, other).mean).all()
    assert (model.prior(y).mean != model.prior(other).mean).all()


def test_the_label_reaches_a_convolutional_cvae_once_film_has_weights(new_model):
    model = convolutional("CVAE", new_model)
    for parameter in model.parameters():
        if (parameter == 0.0).all():
            nn.init.normal_(parameter, std=0.2)
    x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    assert (model.encode(x, y).mean != model.encode(x, y + 1).mean).all()
    z = torch.randn(2, 2, 4, 4)
    assert (model.decode(z, y).mean != model.decode(z, y + 1).mean).all()


@pytest.mark.parametrize("family", ["AE", "VAE"])
def test_the_label_changes_nothing_without_a_condition(family, new_model):
    model = new_model(family)
    x, y = batch()
    assert torch.equal(model.reconstruct(x, y), model.reconstruct(x, torch.full_like(y, -1)))


# ---- training without a Trainer -------------------------------------------------------------------------------------


def test_autoencoder_minimises_the_distortion_at_its_latent(new_model, monkeypatch):
    model = new_model("AE", likelihood=lk.FixedGaussian(0.5))
    x, y = batch()
    monkeypatch.setattr(model, "log_train", lambda terms: None)
    x_hat = model.decoder(model.encoder(x, None), None)
    squared_error = (x - x_hat).square().flatten(1).sum(1)
    constant = 6 * math.log(math.pi)
    torch.testing.assert_close(model.training_step(Batch(x, y), 0), squared_error.mean() + constant, **EXACT)
    assert "elbo" not in model.evaluation_terms(Batch(x, y), None)


@pytest.mark.parametrize("family", ["VAE", "CVAE"])
@pytest.mark.parametrize("objective", [ELBO(num_samples=2), IWAE(3)])
def test_one_step_reaches_every_parameter(family, objective, new_model, monkeypatch):
    prior = {"prior": random_prior()} if family == "CVAE" else {}
    model = new_model(family, objective=objective, likelihood=lk.LearnedGaussian(), **prior)
    monkeypatch.setattr(model, "log_train", lambda terms, **scalars: None)
    model.training_step(batch(8), 0).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad != 0.0).any(), name


def test_evaluation_uses_the_draws_and_nothing_else(new_model):
    model, images = new_model("VAE"), batch()
    state = torch.get_rng_state()
    one, same = (model.evaluation_terms(images, Draws(1, 0, torch.arange(6))) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    for name in model.term_names:
        assert torch.equal(one[name], same[name])
        assert one[name].shape == (6,)


def test_batch_statistics_of_a_rank_alone_are_warned_of(new_model, monkeypatch):
    model = new_model("VAE")
    model.noise_seed = 0
    ddp = SimpleNamespace()
    monkeypatch.setattr("lit_vae.models.module.world_size", lambda: 2)
    monkeypatch.setattr("lit_vae.models.module.DistributedDataParallel", SimpleNamespace)
    monkeypatch.setattr(type(model), "trainer", SimpleNamespace(strategy=SimpleNamespace(model=ddp)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.on_fit_start()
    assert not ddp.broadcast_buffers
    model.decoder = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    with pytest.warns(UserWarning, match=r"VAE: decoder\.0 normalises .* 2 ranks .*Set trainer\.sync_batchnorm: true"):
        model.on_fit_start()
    assert ddp.broadcast_buffers
    model.decoder = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.decoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.on_fit_start()
    assert not ddp.broadcast_buffers


# ---- what they say --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_fitting_data_are_no_problem(family, new_model):
    assert new_model(family).problems(spec()) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_another_shape(family, new_model):
    assert new_model(family).problems(spec(shape=(3, 32, 32))) == [
        f"{family}: model.image_shape (=[1, 3, 4]) is not the shape of the data's images [3, 32, 32]"
        " ([channels, height, width]). Change model.init_args.image_shape or the data."
    ]


def test_every_problem_is_told_at_once(new_model):
    model = new_model("CVAE", likelihood=lk.Bernoulli(), prior=ClassConditionalNormal([2], 7))
    assert model.problems(spec("uint8", num_classes=0, shape=(3, 32, 32))) == [
        "Bernoulli: model.likelihood is for binary values, the data are 'uint8'. Binarise the data (e.g."
        " data.init_args.binarization: dynamic), set model.init_args.likelihood.init_args.soft_targets: true (a"
        " cross-entropy, no likelihood), or take a Gaussian.",
        "CVAE: model.image_shape (=[1, 3, 4]) is not the shape of the data's images [3, 32, 32]"
        " ([channels, height, width]). Change model.init_args.image_shape or the data.",
        "CVAE: the data have no labels. Take labelled data, or a VAE.",
        "CVAE: model.prior.num_classes (=7) is not model.num_classes (=4). Set both to the number of labels.",
    ]


def test_a_vae_has_no_use_for_a_prior_of_each_class(new_model):
    assert new_model("VAE", prior=ClassConditionalNormal([2], 7)).problems(spec()) == [
        "VAE: model.prior.num_classes (=7) is not model.num_classes (=0). The model has no labels: take"
        " lit_vae.priors.StandardNormal, or a CVAE."
    ]


def test_more_labels_than_classes(new_model):
    assert new_model("CVAE").problems(spec(num_classes=10)) == [
        "CVAE: model.num_classes (=4) is less than the 10 labels of the data. Set model.init_args.num_classes: 10."
    ]
    assert new_model("CVAE").problems(spec(num_classes=3)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_that_fit_are_checked_without_a_trace(family, new_model):
    model = new_model(family).train()
    state = torch.get_rng_state()
    assert model.check_networks() == []
    assert model.training
    assert torch.equal(state, torch.get_rng_state())


def test_networks_that_do_not_fit_each_other(new_model):
    model = new_model("VAE")
    model.decoder = MLP((3,), SHAPE, 0, hidden=[])
    (problem,) = model.check_networks()
    assert problem.startswith("VAE: encoder and decoder do not fit together: ")
    assert "(1x2 and 3x12)" in problem  # the rest is torch's
    model.decoder = MLP((2,), (1, 4, 4), 0, hidden=[])
    assert model.check_networks() == ["VAE: the decoder makes images [1, 4, 4], not [1, 3, 4]."]


@pytest.mark.parametrize("image_shape", [[3, 4], [0, 3, 4]])
@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_image_shape(family, image_shape, new_model):
    with pytest.raises(ValueError) as error:
        new_model(family, image_shape)
    said = "(=0) must be at least 1." if 0 in image_shape else f"(={image_shape}) must be [channels, height, width]."
    assert str(error.value).startswith(f"{family}: image_shape {said}")


def test_every_family_is_exported():
    from lit_vae import models

    assert {models.AE, models.VAE, models.CVAE, models.PCA} == {*FAMILIES.values(), PCA}
