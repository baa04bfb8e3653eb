"""Probabilistic PCA against scikit-learn: as a density, as a projection, and as what Lightning trains and saves."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.decomposition import PCA as SklearnPCA
from torch import Generator

from lit_vae.images import Batch, ImageSpec
from lit_vae.models import PCA
from lit_vae.models.pca import Moments, solve

SHAPE, SIZE, LATENT = (2, 3, 4), 24, 5


def images(number: int = 150) -> torch.Tensor:
    """Inside of [-1, 1], so that nothing is clamped."""
    generator = Generator().manual_seed(1)
    spread = 0.05 + 0.1 * torch.rand(SIZE, generator=generator)
    mixing = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator)).Q
    return ((torch.rand(number, SIZE, generator=generator) - 0.5) * spread * 4.0 @ mixing * 0.5 + 0.1).unflatten(
        1, SHAPE
    )


def moments_of(x) -> Moments:
    flat = x.flatten(1).double()
    return Moments(torch.tensor(float(len(flat)), dtype=torch.float64), flat.sum(0), flat.T @ flat)


def fitted(x) -> PCA:
    model = PCA(list(SHAPE), LATENT)
    model.set_weights(solve(moments_of(x), LATENT))
    return model


def sklearn_of(x) -> SklearnPCA:
    """With variances over n, the maximum of the likelihood, where scikit-learn divides by n - 1."""
    oracle = SklearnPCA(LATENT, svd_solver="full").fit(x.flatten(1).numpy())
    correction = (len(x) - 1) / len(x)
    oracle.explained_variance_ *= correction
    oracle.noise_variance_ *= correction
    return oracle


def labels(x) -> torch.Tensor:
    return torch.full((len(x),), -1)


class Loader:
    """Batches of 40 images, the last of which is smaller."""

    def __init__(self, x):
        self.batches = [Batch(part, labels(part)) for part in x.split(40)]

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


@torch.no_grad()
def test_log_likelihood_is_that_of_sklearn_for_every_image():
    x, unseen = images().split([120, 30])
    terms = fitted(x).evaluation_terms(Batch(unseen, labels(unseen)), None)
    expected = torch.from_numpy(sklearn_of(x).score_samples(unseen.flatten(1).numpy()))
    torch.testing.assert_close(terms["elbo"], expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(-terms["loss"], expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(-(terms["rate"] + terms["distortion"]), expected, rtol=0, atol=1e-8)


@torch.no_grad()
def test_reconstruction_is_the_projection_of_sklearn():
    x = images()
    oracle = sklearn_of(x)
    expected = torch.from_numpy(oracle.inverse_transform(oracle.transform(x.flatten(1).numpy()))).unflatten(1, SHAPE)
    model = fitted(x)
    torch.testing.assert_close(model.reconstruct(x, labels(x)), expected, rtol=0, atol=1e-8)
    predicted = model.predict_step(Batch(x, labels(x)), 0)
    torch.testing.assert_close(predicted["x_hat"], expected, rtol=0, atol=1e-8)


@torch.no_grad()
def test_latents_of_the_training_images_are_uncorrelated_and_shrunk():
    """In each direction the means have variance 1 - v / l, and the posterior has v / l: together 1."""
    x = images()
    model = fitted(x)
    posterior = model.encode(x, labels(x))
    oracle = sklearn_of(x)
    kept = 1.0 - torch.from_numpy(oracle.noise_variance_ / oracle.explained_variance_)
    mean = posterior.mean
    torch.testing.assert_close(mean.mean(0), torch.zeros(LATENT), rtol=0, atol=1e-10)
    torch.testing.assert_close(mean.T @ mean / len(x), torch.diag(kept), rtol=0, atol=1e-10)
    torch.testing.assert_close(mean.var(0, correction=0) + posterior.log_var[0].exp(), torch.ones(LATENT))


@torch.no_grad()
def test_posterior_is_exact_so_every_importance_weight_is_the_likelihood():
    x = images()
    model = fitted(x)
    elbo = model.evaluation_terms(Batch(x, labels(x)), None)["elbo"]
    for k in (1, 5):
        torch.testing.assert_close(-model.importance_weighted_nll(x, labels(x), k, 2), elbo, rtol=0, atol=1e-8)


def test_solution_reports_the_mean_likelihood_and_rate_of_its_images():
    x = images()
    solution = solve(moments_of(x), LATENT)
    with torch.no_grad():
        terms = fitted(x).evaluation_terms(Batch(x, labels(x)), None)
    torch.testing.assert_close(solution.elbo, terms["elbo"].mean(), rtol=0, atol=1e-8)
    torch.testing.assert_close(solution.rate, terms["rate"].mean(), rtol=0, atol=1e-8)


@torch.no_grad()
def test_samples_have_the_covariance_of_the_model():
    model = fitted(images())
    weight, bias = model.decoder.layers[0].weight, model.decoder.layers[0].bias
    number = 20_000
    x = model.sample(number, generator=Generator().manual_seed(3)).flatten(1)  # decoder means: without the noise v
    z = (x - bias) @ weight / weight.square().sum(0)  # W has orthogonal columns: z is N(0, I) again
    torch.testing.assert_close(z @ weight.T + bias, x, rtol=0, atol=1e-12)
    error = z.T @ z / number - torch.eye(LATENT)
    standard_error = (torch.ones(LATENT, LATENT) + torch.eye(LATENT)).sqrt() / math.sqrt(number)
    assert (error.abs() < 3.0 * standard_error).all()


def new_trainer(tmp_path, **given) -> Trainer:
    arguments = {
        "max_epochs": 1, "accelerator": "cpu", "logger": CSVLogger(tmp_path), "log_every_n_steps": 1,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    return Trainer(**arguments | given)


def test_one_epoch_of_lightning_fits_validates_saves_and_logs(tmp_path):
    x, unseen = images().split([120, 30])
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", monitor="val/loss", save_last=True)
    trainer = new_trainer(tmp_path, callbacks=[checkpoint], num_sanity_val_steps=0)
    model = PCA(list(SHAPE), LATENT)
    trainer.fit(model, Loader(x), Loader(unseen))

    expected = fitted(x)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name].abs(), value.abs(), rtol=0, atol=1e-8)  # up to signs
    metrics = trainer.callback_metrics
    oracle = sklearn_of(x)
    assert metrics["train/elbo"].item() == pytest.approx(oracle.score_samples(x.flatten(1).numpy()).mean(), rel=1e-6)
    of_unseen = oracle.score_samples(unseen.flatten(1).numpy()).mean()  # validated after it was solved, not before
    assert metrics["val/elbo"].item() == pytest.approx(of_unseen, rel=1e-6)
    rate = -(metrics["train/elbo"] + metrics["train/distortion"]).item()
    assert metrics["train/rate"].item() == pytest.approx(rate, abs=1e-5)  # differences of float32 numbers of tens

    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    assert saved["global_step"] == 3
    restored = PCA(list(SHAPE), LATENT)
    restored.load_state_dict(saved["state_dict"])
    with torch.no_grad():
        a, b = (m.evaluation_terms(Batch(unseen, labels(unseen)), None)["elbo"] for m in (model, restored))
    assert torch.equal(a, b)


def test_a_second_epoch_computes_the_same_again(tmp_path):
    x = images()
    one, two = PCA(list(SHAPE), LATENT), PCA(list(SHAPE), LATENT)
    new_trainer(tmp_path, logger=False, enable_checkpointing=False).fit(one, Loader(x), Loader(x))
    new_trainer(tmp_path, logger=False, enable_checkpointing=False, max_epochs=2).fit(two, Loader(x), Loader(x))
    for name, value in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], value)


def test_max_steps_fits_to_the_images_that_were_seen(tmp_path):
    x = images()
    model = PCA(list(SHAPE), LATENT)
    new_trainer(tmp_path, logger=False, enable_checkpointing=False, max_epochs=-1, max_steps=2).fit(
        model, Loader(x), Loader(x)
    )
    torch.testing.assert_close(model.noise_log_var, fitted(x[:80]).noise_log_var, rtol=0, atol=1e-10)


def test_resuming_within_the_epoch_is_refused(tmp_path):
    """The first batches' sums are not in the checkpoint: going on would fit to the rest alone, in silence."""
    with pytest.raises(ValueError) as error:
        PCA(list(SHAPE), LATENT).training_step(Loader(images()).batches[0], 2)
    assert str(error.value) == (
        "PCA: it needs one whole epoch, but this run was resumed at batch 2."
        " Start it again without ckpt_path, or from a checkpoint of the end of an epoch."
    )


def test_too_few_images_leave_no_noise():
    with pytest.raises(ValueError) as error:
        solve(moments_of(images(LATENT + 1)), LATENT)
    assert str(error.value) == (
        "PCA: latent_dim (=5) directions hold all the variance of the 6 training images and leave none to the noise"
        " (n images span at most n - 1 of their 24 dimensions). Set a smaller model.init_args.latent_dim, take"
        " more images (trainer.limit_train_batches leaves some out), or dequantise the data."
    )
    assert solve(moments_of(images(LATENT + 2)), LATENT).variance > 0.0  # one direction beyond the latents is enough


def test_fewer_images_than_dimensions_average_over_the_empty_ones_too():
    """Tipping and Bishop, eq. 8, divides by D - d whatever the rank."""
    x = images(12)
    flat = x.flatten(1)
    values = torch.linalg.svdvals(flat - flat.mean(0)).square() / 12
    solution = solve(moments_of(x), LATENT)
    torch.testing.assert_close(solution.variance, values[LATENT:].sum() / (SIZE - LATENT), rtol=1e-9, atol=0)


def test_equal_eigenvalues_keep_no_direction_and_stay_finite():
    """White images: W = 0, the posterior is the prior, and the projection is the mean."""
    x = torch.cat([torch.eye(SIZE), -torch.eye(SIZE)]).unflatten(1, SHAPE)
    model = fitted(x)
    with torch.no_grad():
        terms = model.evaluation_terms(Batch(x, labels(x)), None)
        x_hat = model.reconstruct(x, labels(x))
    torch.testing.assert_close(terms["rate"], torch.zeros(len(x)), rtol=0, atol=1e-12)
    assert x_hat.isfinite().all()
    expected = torch.distributions.Normal(0.0, (1.0 / SIZE) ** 0.5).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(terms["elbo"], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("latent_dim", "expected"),
    [
        (0, "must be at least 1."),
        (
            SIZE,
            "must be less than the 24 values of an image of model.image_shape (=[2, 3, 4]). Set",
        ),
    ],
)
def test_wrong_latent_dim(latent_dim, expected):
    with pytest.raises(ValueError) as error:
        PCA(list(SHAPE), latent_dim)
    assert str(error.value).startswith(f"PCA: latent_dim (={latent_dim}) {expected}")


def test_bits_per_dim_are_of_dequantised_images_only():
    model = PCA(list(SHAPE), LATENT)
    nats = torch.tensor([SIZE * math.log(2.0)])
    assert model.likelihood.bits_per_dim(nats, ImageSpec(*SHAPE, 0, "dequantized")).item() == pytest.approx(8.0)
    assert model.likelihood.bits_per_dim(nats, ImageSpec(*SHAPE, 0, "uint8")) is None
    assert model.problems(ImageSpec(*SHAPE, 0, "uint8")) == []
