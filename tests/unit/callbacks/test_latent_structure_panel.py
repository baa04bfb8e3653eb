"""What `LatentStructure` logs and draws, of a model with and without a posterior."""

from functools import partial

import pytest
import torch
from PIL import Image

from callbacks import LatentStructure
from callbacks.latent_structure import structure_figure
from lit_vae.data import FakeImages
from lit_vae.distributions import DiagonalGaussian
from lit_vae.flows import AffineFlow
from lit_vae.metrics import LatentStructureMetric
from lit_vae.posteriors import FlowPosterior
from lit_vae.priors import StandardNormal

SHAPE = [2, 2, 3]


@pytest.mark.parametrize("family", ["VAE", "AE"])
def test_a_test_logs_the_numbers_of_all_its_images_and_a_picture(family, new_model, new_trainer, data, tmp_path):
    model = new_model(family, **({"prior": StandardNormal(SHAPE)} if family == "VAE" else {"latent_shape": SHAPE}))
    callback = LatentStructure()
    trainer = new_trainer(callback)
    trainer.test(model, datamodule=data, verbose=False)
    metric = LatentStructureMetric(tuple(SHAPE), 3)
    with torch.no_grad():
        (batch,) = FakeImages(24, 20, 20, size=8, num_classes=3, batch_size=20).ordered_dataloader("test")
        latents = model.eval().encode(*batch) if family == "VAE" else model.eval().embed(*batch)
    metric.update(latents, batch.y, torch.arange(20))
    expected = metric.compute().numbers
    logged = {name.removeprefix("test/"): value for name, value in trainer.callback_metrics.items()}
    assert set(callback.numbers(model, data)) == set(expected) == {n for n in logged if n.startswith("latent_")}
    for name, value in expected.items():
        torch.testing.assert_close(logged[name], value[0].float(), msg=name)
    assert isinstance(latents, DiagonalGaussian) == bool(logged["latent_noise"] > 0.0)
    assert len(callback.replicates["latent_high_frequency"]) == 20
    (picture,) = (tmp_path / "media").rglob("*.png")
    assert picture.parent.name == "latent_structure"
    with Image.open(picture) as image:
        assert image.size == (1050, 435)
        assert image.text["Description"] == "Spectrum and channels of the latents of the test images"


def test_the_picture_shows_the_spectrum_of_maps_and_the_std_of_channels():
    generator = torch.Generator().manual_seed(0)
    metric = LatentStructureMetric((3, 4, 4))
    metric.update(torch.randn(50, 3, 4, 4, generator=generator), torch.full((50,), -1), torch.arange(50))
    structure = metric.compute()
    of_energy, of_channels = structure_figure(structure).axes
    assert of_energy.get_title().endswith("white noise 62.5%")
    (line,) = (line for line in of_energy.lines if line.get_marker() == "o")
    assert line.get_xdata()[:2] == pytest.approx([0.0, (2.0 + 2.0**0.5) / 24.0])  # two of 1/8, one of their diagonal
    assert max(line.get_ydata()) < 1.5
    assert [bar.get_height() for bar in of_channels.patches] == pytest.approx(structure.std.tolist())
    one = LatentStructureMetric((1,))
    one.update(torch.randn(50, 1, generator=generator), torch.full((50,), -1), torch.arange(50))
    (alone,) = structure_figure(one.compute()).axes
    assert (alone.get_xlabel(), len(alone.patches)) == ("dimension", 1)


def test_latents_that_never_change_can_be_drawn(new_model, new_trainer, data, tmp_path):
    model = new_model("AE", latent_shape=SHAPE)
    for parameter in model.encoder.parameters():
        torch.nn.init.zeros_(parameter)
    trainer = new_trainer(LatentStructure())
    trainer.test(model, datamodule=data, verbose=False)
    assert trainer.callback_metrics["test/latent_high_frequency"].isnan()
    assert len(list((tmp_path / "media").rglob("*.png"))) == 1


def test_a_posterior_without_variances_is_refused(new_model, new_trainer, data):
    model = new_model("VAE", posterior=partial(FlowPosterior, flow=partial(AffineFlow, hidden=[8]), context=2))
    with pytest.raises(
        ValueError, match=r"LatentStructure: it needs the variances of latents, and the posterior of VAE"
    ):
        new_trainer(LatentStructure()).test(model, datamodule=data, verbose=False)
