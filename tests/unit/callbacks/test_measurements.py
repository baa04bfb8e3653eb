"""What the measuring callbacks log, against the same numbers computed from all images at once."""

import math

import pytest
import torch
from PIL import Image

from callbacks import EMA, ImageQuality, ImportanceSampledNLL, LatentStatistics
from callbacks.latent_statistics import kl_figure
from lit_vae.data import FakeImages
from lit_vae.likelihoods import Bernoulli, DiscretizedLogisticMixture
from lit_vae.metrics.image_quality import ssim_per_image, ssim_window
from lit_vae.metrics.latents import LatentSummary, summarize_posteriors
from lit_vae.noise import FIXED, Draws


def logged(trainer, prefix):
    return {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}


@pytest.mark.parametrize("split", ["val", "test"])
def test_image_quality_is_the_mean_over_images(split, new_model, new_trainer, data):
    model, trainer = new_model("CVAE"), new_trainer(ImageQuality())
    evaluate = trainer.validate if split == "val" else trainer.test
    evaluate(model, datamodule=data, verbose=False)
    x, y = data.example_batch(20, split)
    with torch.no_grad():
        x_hat = model.eval().reconstruct(x, y)
    got = logged(trainer, split)
    mse = (x_hat - x).double().square().flatten(1).mean(1)
    assert got[f"{split}/mse"] == pytest.approx(mse.mean().item(), rel=1e-6)
    assert got[f"{split}/psnr"] == pytest.approx((10 * torch.log10(4 / mse)).mean().item(), rel=1e-6)
    ssim = ssim_per_image(x_hat, x, ssim_window(8, 8)).mean().item()
    assert got[f"{split}/ssim_uniform7"] == pytest.approx(ssim, rel=1e-5)
    assert f"{split}/ssim" not in got


def test_latent_statistics_of_a_test(new_model, new_trainer, data, tmp_path):
    model, trainer = new_model("CVAE"), new_trainer(LatentStatistics())
    trainer.test(model, datamodule=data, verbose=False)
    x, y = data.example_batch(20, "test")
    with torch.no_grad():
        posterior, prior = model.encode(x, y), model.prior(y)
    summary = summarize_posteriors((posterior.mean - prior.mean) / prior.std, posterior.log_var - prior.log_var)
    got = logged(trainer, "test")
    assert got["test/active_units"] == summary.active_units
    assert got["test/mutual_information"] == pytest.approx(summary.mutual_information.item(), rel=1e-4)
    assert got["test/aggregate_kl"] == pytest.approx(summary.aggregate_kl.item(), rel=1e-4)
    kl = posterior.kl_per_dim(prior).mean(0)
    assert got["test/kl_per_dim_max"] == pytest.approx(kl.max().item(), rel=1e-4)
    assert got["test/kl_per_dim_mean"] == pytest.approx(kl.mean().item(), rel=1e-4)
    assert got["test/mutual_information"] + got["test/aggregate_kl"] == pytest.approx(got["test/rate"], rel=1e-4)
    with Image.open(tmp_path / "media" / "kl_per_dim" / "step_0.png") as image:
        assert image.text["Description"] == "Mean KL of each latent dimension to its prior, over 20 test images"


def test_by_default_expensive_numbers_are_of_tests_alone(new_model, new_trainer, data):
    trainer = new_trainer(LatentStatistics(), ImportanceSampledNLL(2), max_epochs=1)
    trainer.fit(new_model("VAE"), datamodule=data)
    assert not {key for key in trainer.callback_metrics if "iw" in key or "units" in key}


def test_nll_is_the_mean_of_the_model_s_own_over_batches(new_model, new_trainer, data):
    model, trainer = new_model("VAE"), new_trainer(ImportanceSampledNLL(6, chunk=4))
    trainer.test(model, datamodule=data, verbose=False)
    first = logged(trainer, "test")
    trainer.test(model, datamodule=data, verbose=False)
    assert logged(trainer, "test") == first  # the same noise
    draws = Draws(2**31 - 19, FIXED, torch.arange(20))
    nll = model.importance_weighted_nll(*data.example_batch(20, "test"), 6, 4, draws)
    assert first["test/nll_iw6"] == pytest.approx(nll.mean().item(), rel=1e-5)
    assert "test/bits_per_dim_iw6" not in first  # a density of values that were not dequantised


def test_nll_of_the_first_images_and_its_bits(new_model, new_trainer, data):
    model, callback = new_model("VAE", likelihood=DiscretizedLogisticMixture(2)), ImportanceSampledNLL(3, max_images=11)
    trainer = new_trainer(callback)
    trainer.test(model, datamodule=data, verbose=False)
    draws = Draws(2**31 - 19, FIXED, torch.arange(11))
    nll = model.importance_weighted_nll(*(t[:11] for t in data.example_batch(20, "test")), 3, 16, draws).mean().item()
    got = logged(trainer, "test")
    assert got["test/nll_iw3"] == pytest.approx(nll, rel=1e-5)
    assert got["test/bits_per_dim_iw3"] == pytest.approx(nll / (64 * math.log(2)), rel=1e-5)


@pytest.mark.parametrize(("values", "reported"), [("uint8", False), ("binary", True)])
def test_soft_targets_have_no_nll(values, reported, new_model, new_trainer):
    data = FakeImages(num_test=20, size=8, values=values)
    trainer = new_trainer(ImportanceSampledNLL(2))
    trainer.test(new_model("VAE", likelihood=Bernoulli(soft_targets=True)), datamodule=data, verbose=False)
    assert ("test/nll_iw2" in trainer.callback_metrics) == reported


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (ImportanceSampledNLL(), r"ImportanceSampledNLL: AE has no bound of the likelihood of an image\. Remove callb"),
        (LatentStatistics(), r"LatentStatistics: AE has no posterior and prior of one latent\. Remove"),
    ],
)
def test_a_plain_autoencoder_has_neither(callback, message, new_model, new_trainer, data):
    with pytest.raises(ValueError, match=message):
        new_trainer(callback).test(new_model("AE"), datamodule=data, verbose=False)


@pytest.mark.parametrize("first", [True, False])
def test_validations_measure_the_average(first, new_model, new_trainer, data):
    model, quality, ema = new_model("VAE"), ImageQuality(), EMA(0.9)
    trainer = new_trainer(*([quality, ema] if first else [ema, quality]), max_epochs=1)
    trainer.fit(model, datamodule=data)
    fitted = trainer.callback_metrics["val/mse"].item()
    x, y = data.example_batch(20)
    with torch.no_grad():  # fit leaves the average in the model
        assert fitted == pytest.approx((model.reconstruct(x, y) - x).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImportanceSampledNLL(0), r"ImportanceSampledNLL: num_samples \(=0\) must be at least 1"),
        (lambda: ImportanceSampledNLL(chunk=0), r"ImportanceSampledNLL: chunk \(=0\) must be at least 1"),
        (lambda: LatentStatistics(max_images=1), r"LatentStatistics: max_images \(=1\) must be at least 2"),
        (lambda: ImageQuality(every_n_epochs=0), r"ImageQuality: every_n_epochs \(=0\) must be at least 1"),
    ],
)
def test_impossible_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("d", [3, 200])
def test_a_bar_for_each_dimension_the_most_used_first(d):
    kl = torch.rand(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros(())
    axes = kl_figure(LatentSummary(kl, torch.tensor(2), zero, zero, zero, 10)).axes[0]
    order = kl.argsort(descending=True)
    assert [bar.get_height() for bar in axes.patches] == kl[order].tolist()
    if d == 3:
        assert [text.get_text() for text in axes.get_xticklabels()] == [str(dim + 1) for dim in order.tolist()]
    assert axes.get_title() == f"rate {kl.sum():.2f} nats, 2 of {d} units active"
