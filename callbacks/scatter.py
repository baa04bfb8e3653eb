"""A scatter plot of latents."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from callbacks.drawing import SIGMA, new_figure, rasterize
from callbacks.panel import Images, Panel, example_images, prior_of
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import AtLeastThree, PositiveInt, checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Method = Literal["pca", "tsne"]

_LEGEND_CLASSES = 20
"""More labels than this get a colour bar."""


class Projection(NamedTuple):
    """Points in the plane ``(N, 2)`` with labels of the axes."""

    points: np.ndarray
    x_label: str
    y_label: str


class LatentScatter(Panel):
    """Latents (or posterior means) of validation images, coloured by label: panel ``latent_scatter``.

    Two-dimensional latents are shown directly, with circles at 1 and 2 standard deviations of the prior; for a
    class-conditional prior, one circle per class at 2 standard deviations. More dimensions are projected.

    Args:
        num_images: number of validation images, at most all.
        every_n_epochs: see `Periodic`.
        method: ``pca``: the plane of largest variance. ``tsne``: keeps neighbours together, but distances between
            groups mean nothing (van der Maaten and Hinton 2008); takes seconds.
    """

    name = "latent_scatter"

    @checked
    def __init__(
        self, num_images: AtLeastThree = 2000, every_n_epochs: PositiveInt = 1, method: Method = "pca"
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.method = num_images, method
        self.caption = "Latents of validation images, coloured by label"

    def draw(self, model: Autoencoder, images: Images) -> Image.Image:
        """A square figure with a legend beside it."""
        return rasterize(self.figure(model, images))

    def figure(self, model: Autoencoder, images: Images) -> "Figure":
        """The same as a matplotlib figure."""
        latents, labels = [], []
        for batch in example_images(images, self.num_images, model):
            latents.append(model.embed(*batch).detach().flatten(1).double().cpu())
            labels.append(batch.y.cpu())
        z, y = torch.cat(latents).numpy(), torch.cat(labels).numpy()
        projection = project(z, self.method)
        figure = new_figure(5.6, 4.6)
        axes = figure.add_subplot()
        colours = _scatter(axes, projection.points, y, model.class_name)
        if z.shape[1] == 2:
            _draw_prior(axes, model, colours)
        axes.set_xlabel(projection.x_label)
        axes.set_ylabel(projection.y_label)
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(alpha=0.2, linewidth=0.5)
        axes.set_axisbelow(True)
        return figure


def project(z: np.ndarray, method: Method) -> Projection:
    """Projects latents ``(N, d)`` to the plane, with labels of the axes; deterministic, including signs."""
    if z.shape[1] == 1:
        return Projection(np.concatenate([z, np.zeros_like(z)], 1), "z1", "")
    if z.shape[1] == 2:
        return Projection(z, "z1", "z2")
    if method == "tsne" and len(z) > 3:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(z) - 1) / 3.0)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1)
        return Projection(tsne.fit_transform(z), f"t-SNE 1 (perplexity {perplexity:.3g})", "t-SNE 2")
    from sklearn.decomposition import PCA

    if not z.std(0).any():  # a collapsed encoder: no principal directions
        return Projection(np.zeros((len(z), 2)), "PCA 1 (no variance)", "PCA 2 (no variance)")
    pca = PCA(2, svd_solver="full" if min(z.shape) <= 500 else "randomized", random_state=0)
    points = pca.fit_transform(z)
    share = [
        f"PCA {i + 1} ({100 * ratio:.0f} % of the variance)" for i, ratio in enumerate(pca.explained_variance_ratio_)
    ]
    return Projection(points, share[0], share[1])


def _scatter(axes: "Axes", points: np.ndarray, y: np.ndarray, name: Callable[[int], str] = str) -> dict[int, Any]:
    """Draw the points; return the colour of each label, empty without labels."""
    import matplotlib

    style: dict[str, Any] = {"s": min(max(5000 / len(points), 6), 25), "alpha": 0.75, "linewidths": 0}
    labels = [int(label) for label in np.unique(y)]
    if labels == [-1]:
        axes.scatter(points[:, 0], points[:, 1], color="0.25", **style)
        return {}
    if len(labels) > _LEGEND_CLASSES:
        drawn = axes.scatter(points[:, 0], points[:, 1], c=y, cmap="turbo", **style)
        axes.figure.colorbar(drawn, ax=axes, label="label")
        return dict(zip(labels, drawn.to_rgba(np.array(labels)), strict=True))
    palette = matplotlib.colormaps["tab10" if max(labels) < 10 else "tab20"]
    colours = {label: palette(label % palette.N) for label in labels}
    # in the order of the data: in the order of labels, the last class would cover the others
    axes.scatter(points[:, 0], points[:, 1], color=[colours[int(label)] for label in y], **style)
    for label, colour in colours.items():
        axes.scatter([], [], color=[colour], s=30, label=name(label))
    axes.legend(title="label", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.1)
    return colours


def _draw_prior(axes: "Axes", model: Autoencoder, colours: dict[int, Any]) -> None:
    """Circles of a two-dimensional prior: one pair, or one circle per class if the classes differ."""
    from matplotlib.patches import Ellipse

    y = torch.arange(max(model.num_classes, 1), device=model.device)
    prior = prior_of(model, y)
    if prior is None:
        return
    mean = _two(prior.mean)
    std = _two(prior.std.expand_as(prior.mean))
    shared = bool((mean == mean[0]).all() and (std == std[0]).all())
    for label in range(1 if shared else len(y)):
        for radius in (1.0, 2.0) if shared else (2.0,):
            width, height = (2.0 * radius * std[label]).tolist()
            colour = "0.3" if shared else colours.get(label, "0.3")
            style: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": "--", "linewidth": 1}
            center = (float(mean[label, 0]), float(mean[label, 1]))
            axes.add_patch(Ellipse(center, width, height, **style))
    text = f"p(z): 1{SIGMA}, 2{SIGMA}" if shared else f"p(z|y): 2{SIGMA}"
    axes.plot([], [], color="0.3", linestyle="--", linewidth=1, label=text)
    legend = {"title": "label"} if colours and len(colours) <= _LEGEND_CLASSES else {}
    axes.legend(**legend, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handletextpad=0.3)


def _two(t: Tensor) -> Tensor:
    return t.detach().flatten(1).double().cpu()
