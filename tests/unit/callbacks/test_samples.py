from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks import EMA, ClassSheet, Samples
from callbacks.drawing import GAP, WIDE_GAP
from callbacks.panel import prior_latents
from lit_vae.images import to_uint8
from lit_vae.likelihoods import Bernoulli, FixedGaussian
from lit_vae.models import VAE, KLAutoencoder
from lit_vae.networks import ConvDecoder, ConvEncoder
from lit_vae.objectives import ELBO, IWAE
from lit_vae.priors import StandardNormal
from lit_vae.schedules import LinearWarmup


def cells(picture, rows, columns, size=64, left=0, gaps=None):
    """The images of a sheet, one pixel of each of the 8 x 8 squares: ``(rows, columns, 8, 8)``."""
    pixels = np.asarray(picture)
    ys = np.cumsum([GAP] + [size + (gaps[i] if gaps else GAP) for i in range(rows - 1)])
    xs = left + GAP + np.arange(columns) * (size + GAP)
    return np.stack([[pixels[y : y + size : 8, x : x + size : 8] for x in xs] for y in ys])


def expected(x):
    return to_uint8(x).squeeze(1).numpy()


def test_means_at_the_latents_of_a_generator_on_the_cpu(new_model):
    model = new_model("VAE", latent=4)
    picture = Samples(6, temperature=0.7, seed=5).draw(model)
    eps = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))
    means = model.decode(0.7 * eps, None).mean.clamp(-1, 1)
    np.testing.assert_array_equal(cells(picture, 2, 3), expected(means).reshape(2, 3, 8, 8))


def test_a_caption_says_where_latents_do_not_follow_what_is_drawn_from(new_model):
    """Decoding N(0, I) from an autoencoder with a KL of small weight gives noise, and people ask why."""
    captions = {}
    for family in ("VAE", "AE"):
        panel = Samples(6)
        for _ in range(2):  # a fit checks the model, a test does again
            panel.check_model(new_model(family))
        captions[family] = panel.caption
    plain = "Decoder means at draws from the prior, temperature 1"
    assert captions["VAE"] == plain
    assert captions["AE"] == f"{plain}; AE: it has no prior: drawn from N(0, I). See lit-vae fit-prior."


@pytest.mark.parametrize("family", [KLAutoencoder, VAE])
def test_what_the_kl_weighs_in_the_end_decides_whether_latents_follow_the_prior(family):
    def caption(objective) -> str:
        network = partial(ConvEncoder, width=4, multipliers=[1, 1])
        decoder = partial(ConvDecoder, width=4, multipliers=[1, 1])
        optimizer = partial(torch.optim.Adam, lr=1e-3)
        latent = [2, 4, 4] if family is KLAutoencoder else StandardNormal([2, 4, 4])
        model = family([1, 8, 8], latent, network, decoder, FixedGaussian(), objective, optimizer)
        panel = Samples(4)
        panel.check_model(model)
        return panel.caption

    plain = "Decoder means at draws from the prior, temperature 1"
    small = [
        ELBO(1e-6),
        ELBO(0.0),
        ELBO(0.099),
        ELBO(LinearWarmup(steps=10, end=1e-3)),
        ELBO(1.0, distortion_weight=20),
    ]
    for objective in small:
        weight = f"{objective.rate_weight:g}"
        assert caption(objective).startswith(f"{plain}; {family.__name__}: its KL has a small weight ({weight})")
    for objective in (ELBO(), ELBO(0.1), ELBO(LinearWarmup(steps=10)), ELBO(4.0), ELBO(distortion_weight=0.0), IWAE()):
        assert caption(objective) == plain


@pytest.mark.parametrize("family", ["VAE", "CVAE", "AE"])
def test_the_same_however_often_and_whenever_it_is_drawn(family, new_model):
    model, panel = new_model(family), Samples(9, pixels="both")
    torch.manual_seed(1)
    first = np.asarray(panel.draw(model))
    for _ in range(4):
        torch.rand(5)
        last = np.asarray(panel.draw(model))
    np.testing.assert_array_equal(first, last)
    other = np.asarray(Samples(9, pixels="both", seed=1).draw(model))
    assert not np.array_equal(first, other)


def test_drawing_at_each_epoch_or_once_gives_the_same_last_picture(new_model, new_trainer, data, tmp_path):
    pictures = []
    for every in (1, 5):
        torch.manual_seed(0)
        path = tmp_path / str(every)
        trainer = new_trainer(Samples(9, every_n_epochs=every), EMA(0.9), max_epochs=5, default_root_dir=path)
        trainer.fit(new_model("VAE"), datamodule=type(data)(**data.hparams))
        drawn = sorted((path / "media" / "samples").iterdir())
        assert len(drawn) == (5 if every == 1 else 1)
        with Image.open(path / "media" / "samples" / "step_15.png") as image:
            pictures.append(np.asarray(image))
    np.testing.assert_array_equal(*pictures)


def test_true_samples_are_draws_of_the_likelihood_at_the_same_latents(new_model):
    model = new_model("VAE", likelihood=Bernoulli())
    both = cells(Samples(8, pixels="both").draw(model), 4, 4, gaps=[GAP, WIDE_GAP, GAP])
    means, draws = both[::2], both[1::2]
    np.testing.assert_array_equal(means, cells(Samples(8).draw(model), 2, 4))
    np.testing.assert_array_equal(draws, cells(Samples(8, pixels="sample").draw(model), 2, 4))
    assert set(np.unique(draws)) == {0, 255}
    # a coin of mean 0.5 falls on either side: each pixel within 4.5 standard errors of its mean over many draws
    z = prior_latents(model, torch.full((1,), -1), 1.0, 0)
    y = torch.full((4000,), -1)
    distribution = model.decode(z.expand(4000, -1), y)
    drawn = distribution.sample(torch.Generator().manual_seed(0)).mean(0)
    error = (1.0 - distribution.mean[0] ** 2).sqrt() / 4000**0.5
    assert ((drawn - distribution.mean[0]).abs() < 4.5 * error).all()


def test_rows_of_a_class_sheet_share_their_noise(new_model, monkeypatch):
    model = new_model("CVAE", latent=4)
    asked = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, y: asked.append((z, y)) or decode(z, y))
    picture = ClassSheet(5, temperature=0.5, seed=2).draw(model)
    eps = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    for label, (z, y) in enumerate(asked):
        assert y.tolist() == [label] * 5
        prior = model.prior(y)
        torch.testing.assert_close(z, prior.mean + 0.5 * prior.std * eps)
    left = picture.width - (5 * (64 + GAP) + GAP)
    rows = cells(picture, 3, 5, left=left)
    np.testing.assert_array_equal(rows[1], expected(decode(*asked[1]).mean.clamp(-1, 1)))


def test_a_class_sheet_needs_classes(new_model, new_trainer, data):
    message = r"ClassSheet: it shows one row per class, but VAE has no labels \(num_classes = 0\)\. Remove it"
    with pytest.raises(ValueError, match=message):
        new_trainer(ClassSheet()).fit(new_model("VAE"), datamodule=data)


@pytest.mark.parametrize("panel", [lambda: Samples(0), lambda: ClassSheet(0)])
def test_an_empty_sheet_is_an_error(panel):
    with pytest.raises(ValueError, match=r"(Samples: num_images|ClassSheet: columns) \(=0\) must be at least 1"):
        panel()
