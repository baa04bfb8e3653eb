"""Numbers of draws from p(x|z), against those of its mean and the noise of the likelihood."""

import pytest

from callbacks import DrawnReconstructions, ImageQuality, PerceptualDistance
from lit_vae.data import FakeImages
from lit_vae.features.classifier import FeatureNetDistance
from lit_vae.likelihoods import Bernoulli, FixedGaussian

STD = 0.02


def images(**given):
    return FakeImages(**{"num_train": 4, "num_val": 4, "num_test": 40, "size": 16, "num_classes": 3, **given})


def numbers_of(new_trainer, model, data, seed):
    trainer = new_trainer(ImageQuality(), DrawnReconstructions([ImageQuality()], seed=seed))
    trainer.test(model, datamodule=data, verbose=False)
    return {name.removeprefix("test/"): value.item() for name, value in trainer.callback_metrics.items()}


def test_the_noise_of_the_likelihood_is_the_only_difference(new_model, new_trainer):
    model = new_model("VAE", size=16, likelihood=FixedGaussian(STD**2))
    got = numbers_of(new_trainer, model, images(), 0)
    # E (x - mean - noise)^2 = (x - mean)^2 + std^2; of n = 40 * 16 * 16 values the standard error of its estimate is
    # that of the noise's square and of the product with the error
    error = (2.0 * STD**4 + 4.0 * STD**2 * got["mse"]) ** 0.5 / (40 * 16 * 16) ** 0.5
    assert abs(got["mse_drawn"] - got["mse"] - STD**2) < 4.0 * error
    assert got["laplacian_ratio_drawn"] > got["laplacian_ratio"]  # noise is fine structure
    assert numbers_of(new_trainer, model, images(), 1)["mse_drawn"] != got["mse_drawn"]


def test_a_draw_belongs_to_its_image_in_any_batch(new_model, new_trainer):
    model = new_model("VAE", size=16, likelihood=Bernoulli(), image_shape=[1, 16, 16])
    one, other = (
        numbers_of(new_trainer, model, images(values="binary", batch_size=size), 0)["mse_drawn"] for size in (7, 40)
    )
    assert one == pytest.approx(other, rel=1e-6)


def test_it_measures_in_tests_alone_by_default(new_model, new_trainer):
    trainer = new_trainer(DrawnReconstructions([ImageQuality()]))
    trainer.validate(new_model("VAE", size=16), datamodule=images(), verbose=False)
    assert "val/mse_drawn" not in trainer.callback_metrics


def test_its_numbers_needs_and_protocols_are_those_of_its_measurements(new_model, new_trainer):
    measured = DrawnReconstructions([ImageQuality(), PerceptualDistance(FeatureNetDistance("no.ckpt"))])
    names = measured.numbers(new_model("VAE", size=16), images())
    assert {"psnr_drawn", "sharpness_drawn", "lpips_featurenet_drawn"} <= set(names)
    assert [str(need.path) for need in measured.needs(None)] == ["no.ckpt"]
    with pytest.raises(ValueError, match=r"checkpoint \(='no.ckpt'\) must be"):
        new_trainer(measured).test(new_model("VAE", size=16), datamodule=images(), verbose=False)


def test_no_measurement_is_refused():
    with pytest.raises(ValueError, match=r"^DrawnReconstructions: measurements is empty\. Give some"):
        DrawnReconstructions([])
