import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from matplotlib.colors import to_hex

from callbacks import Curves, LatentScatter
from callbacks.scatter import project
from lit_vae.data import FakeImages
from lit_vae.priors import StandardNormal


def latents(n=40, d=6):
    return np.random.default_rng(0).normal(size=(n, d)) * np.arange(1.0, d + 1.0)


def test_the_projection_is_that_of_the_singular_vectors():
    z = latents()
    centred = z - z.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    projection = project(z, "pca")
    np.testing.assert_allclose(np.abs(projection.points), np.abs(u[:, :2] * s[:2]), atol=1e-9)
    share = 100 * s**2 / (s**2).sum()
    assert projection.x_label == f"PCA 1 ({share[0]:.0f} % of the variance)"
    assert projection.y_label == f"PCA 2 ({share[1]:.0f} % of the variance)"


def test_signs_do_not_depend_on_the_order_of_the_images():
    z, order = latents(), np.random.default_rng(1).permutation(40)
    np.testing.assert_allclose(project(z[order], "pca").points, project(z, "pca").points[order], atol=1e-9)


def test_tsne_is_repeatable():
    first, second = (project(latents(), "tsne").points for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.std(0).min() > 0


def test_two_dimensions_are_shown_as_they_are_with_the_prior(new_model, data):
    data.setup("fit")
    model = new_model("VAE", latent=2)
    axes = LatentScatter(20).figure(model, data).axes[0]
    x, y = data.example_batch(20)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), model.embed(x, y).detach().numpy(), rtol=1e-6)
    assert sorted(circle.width for circle in axes.patches) == [2.0, 4.0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z1", "z2")
    sigma = "\N{GREEK SMALL LETTER SIGMA}"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2", f"p(z): 1{sigma}, 2{sigma}"]
    colours = {
        label: to_hex(colour) for label, colour in zip(y.tolist(), axes.collections[0].get_facecolor(), strict=True)
    }
    assert colours == {0: "#1f77b4", 1: "#ff7f0e", 2: "#2ca02c"}


def test_a_prior_of_each_class_has_its_own_ellipse(new_model, data):
    data.setup("fit")
    model = new_model("CVAE", latent=2)
    axes = LatentScatter(20).figure(model, data).axes[0]
    prior = model.prior(torch.arange(3))
    for label, ellipse in enumerate(axes.patches):
        np.testing.assert_allclose(ellipse.get_center(), prior.mean[label].detach(), rtol=1e-6)
        np.testing.assert_allclose((ellipse.width, ellipse.height), 4 * prior.std[label].detach(), rtol=1e-6)
    assert len(axes.patches) == 3


@pytest.mark.parametrize(("num_classes", "latent", "legend"), [(0, 2, 1), (0, 5, 0), (12, 5, 12), (30, 2, 1)])
def test_no_labels_many_labels(num_classes, latent, legend, new_model):
    data = FakeImages(num_val=400, size=8, num_classes=num_classes)
    data.setup("fit")
    panel = LatentScatter(400)
    figure = panel.figure(new_model("VAE", latent=latent), data)
    drawn = figure.axes[0].get_legend()
    assert (len(drawn.get_texts()) if drawn else 0) == legend
    assert (len(figure.axes) == 2) == (num_classes > 20)  # a colour bar
    assert panel.draw(new_model("VAE", latent=latent), data).size == (840, 690)


@pytest.mark.parametrize("latent", [1, 3])
def test_latents_of_one_dimension_or_in_one_point(latent, new_model, data):
    data.setup("fit")
    model = new_model("VAE", latent=latent)
    if latent == 3:
        model.embed = lambda x, y: torch.zeros(len(x), 3)
    axes = LatentScatter(20).figure(model, data).axes[0]
    assert axes.get_xlabel() == ("z1" if latent == 1 else "PCA 1 (no variance)")
    assert np.isfinite(axes.collections[0].get_offsets()).all()


def test_latent_maps_are_flattened(new_model, data):
    data.setup("fit")
    model = new_model("VAE", prior=StandardNormal([2, 2, 2]))
    points = LatentScatter(20).figure(model, data).axes[0].collections[0].get_offsets()
    z = model.embed(*data.example_batch(20)).detach().double().flatten(1).numpy()
    np.testing.assert_allclose(points, project(z, "pca").points, atol=1e-9)


class Logged(Callback):
    """Remembers what a run logs, independently."""

    def __init__(self):
        self.rows = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
            self.rows.append((trainer.global_step, logged))


def test_curves_remember_what_was_logged_and_go_on_after_a_resume(new_model, new_trainer, data, tmp_path):
    curves, logged = Curves(), Logged()
    trainer = new_trainer(curves, logged, max_epochs=2)
    trainer.fit(new_model("VAE"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    torch.load(tmp_path / "half.ckpt", weights_only=True)
    resumed = Curves(["rate", "distortion", "loss", "perplexity"])
    trainer = new_trainer(resumed, logged, max_epochs=4)
    trainer.fit(new_model("VAE"), datamodule=data, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.steps == [3, 6, 9, 12] == [step for step, _ in logged.rows]
    for term in ("rate", "distortion", "loss"):
        for split in ("train", "val"):
            assert resumed.values[f"{split}/{term}"] == [row[f"{split}/{term}"] for _, row in logged.rows]
    assert all(math.isnan(value) for value in resumed.values["val/perplexity"])
    assert {path.name for path in (tmp_path / "media/curves").iterdir()} == {f"step_{n}.png" for n in (3, 6, 9, 12)}


def test_curves_show_each_term_that_is_there_once(new_model, new_trainer, data):
    curves = Curves()
    new_trainer(curves, max_epochs=2).fit(new_model("AE"), datamodule=data)
    (distortion,) = curves.figure().axes  # the AE's loss is its distortion, and it has no rate
    assert distortion.get_ylabel() == "distortion (nats per image)"
    lines = {line.get_label(): line for line in distortion.lines}
    assert lines["val"].get_ydata().tolist() == curves.values["val/distortion"]
    assert lines["train"].get_xdata().tolist() == [3, 6]


def test_a_scatter_of_two_points_is_an_error():
    with pytest.raises(ValueError, match=r"LatentScatter: num_images \(=2\) must be at least 3"):
        LatentScatter(2)
