"""Numbers that say how hard the latents of images will be for a prior, from one pass over them.

All are of latents as `lit_vae.data.Latents` gives them to a prior: draws from the posteriors, with each channel scaled
to mean 0 and variance 1 over the images. No latent is drawn: the moments of draws follow from means and variances.

`latent_high_frequency`
    Share of the energy of a map above half the Nyquist frequency: of its two-dimensional orthonormal DCT-II, whose
    coefficient (k, l) has the frequency ``((k / 2h)^2 + (l / 2w)^2)^1/2`` cycles per pixel, the share above 1/4, as a
    mean over channels. White noise has the share of these coefficients. Images have less, and a diffusion model draws
    low frequencies first: Skorokhodov et al., "Improving the Diffusability of Autoencoders", 2025.
`latent_noise`
    Share of the variance that is the noise of the posteriors, as a mean over channels; 0 without a posterior.
`latent_std_ratio`
    The largest standard deviation of a channel over the smallest, before scaling.
`latent_probe_accuracy`
    Share of images whose label a linear map of the posterior mean tells: least squares to one-hot labels, with a bias
    and a penalty of `RIDGE` times the square of the weights, fitted on the images at even positions, tested on the
    others.
`latent_gaussian_nats`
    Total correlation of the Gaussian with the mean and covariance S of the latents,
    ``1/2 sum_i ln S_ii - 1/2 ln det S``, in nats per image: by how much a Gaussian prior with any covariance is better
    than one with independent dimensions. Of N images of d dimensions it is about ``d (d - 1) / 4N`` too high for
    N much larger than d; there is none unless N > d, also without a group of images.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Shape
from lit_vae.intervals import GROUPS
from lit_vae.metrics.feature_sets import MOST_IN_GROUPS
from lit_vae.metrics.jackknife import sums_by_group, without_each
from lit_vae.metrics.spectrum import above_half_nyquist, cosine_basis

MOST_DIMS = 1024
"""With more dimensions there is no covariance, so neither a probe nor a total correlation."""

RIDGE = 0.01
"""Penalty of the probe's squared weights beside the mean squared error over images, of latents of variance 1."""


class LatentStructure(NamedTuple):
    """Numbers of the latents of N images with c channels, and what their picture shows."""

    numbers: dict[str, Tensor]
    """By name, each with that without each group of images: ``(1 + GROUPS,)`` or ``(1,)``."""

    std: Tensor
    """Of each channel, before scaling, ``(c,)``."""

    spectrum: Tensor
    """Mean energy of each DCT coefficient over images and channels, of which white noise has 1: ``(h, w)``."""


def total_correlation(covariance: Tensor) -> Tensor:
    """``1/2 sum_i ln S_ii - 1/2 ln det S`` of covariances S: ``(..., d, d) -> (...)`` nats; infinite if singular.

    >>> total_correlation(torch.tensor([[4.0, 1.2], [1.2, 1.0]]))  # a correlation of 0.6: -1/2 ln(1 - 0.36)
    tensor(0.2231)
    """
    std = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    sign, log_det = torch.linalg.slogdet(covariance / (std[..., None] * std[..., None, :]))
    return torch.where(sign <= 0.0, math.inf, -0.5 * log_det)


class LatentStructureMetric(Metric):
    """`LatentStructure` over all batches and ranks, exact: sums are in float64, and reduced before anything else.

    It keeps the products of all pairs of dimensions, and the means of half of the images for the probe.

    Args:
        shape: of a latent, ``(c, h, w)`` or ``(d,)``.
        num_classes: number of labels; 0 for none.
    """

    full_state_update = False
    counts: Tensor
    sums: Tensor
    variances: Tensor
    energies: Tensor
    products: Tensor
    class_counts: Tensor
    class_sums: Tensor
    tested: list[Tensor]
    tested_labels: list[Tensor]
    tested_index: list[Tensor]

    def __init__(self, shape: Shape, num_classes: int = 0) -> None:
        super().__init__()
        size = math.prod(shape)
        self.channels, self.grid, self.is_map = shape[0], tuple(shape[1:]) or (1, 1), len(shape) > 1
        self.has_products = size <= MOST_DIMS
        self.num_classes = num_classes if self.has_products else 0
        # few sums of many dimensions: at even and at odd positions, which the probe needs apart
        self.groups = GROUPS if size <= MOST_IN_GROUPS else 2
        shapes: dict[str, Shape] = {"counts": (), "sums": (size,), "variances": (size,), "energies": (size,)}
        shapes["products"] = (size, size) if self.has_products else (0, 0)
        shapes |= {"class_counts": (self.num_classes,), "class_sums": (self.num_classes, size)}
        for name, of_group in shapes.items():
            self.add_state(name, torch.zeros(self.groups, *of_group, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("tested", "tested_labels", "tested_index"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @property
    def names(self) -> list[str]:
        """Names of its numbers; ``latent_gaussian_nats`` also needs enough images."""
        wanted = {
            "latent_high_frequency": self.is_map,
            "latent_noise": True,
            "latent_std_ratio": True,
            "latent_probe_accuracy": self.num_classes > 0,
            "latent_gaussian_nats": self.has_products,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def update(self, latents: DiagonalGaussian | Tensor, y: Tensor, index: Tensor) -> None:
        """Add the posteriors ``(B, *shape)`` of a batch, or latents without noise.

        ``index (B,)`` are positions of the images in the split. The labels ``y (B,)`` are not used without classes.
        """
        mean = (latents if isinstance(latents, Tensor) else latents.mean).detach()
        z = mean.double().flatten(1)
        noise = torch.zeros_like(z)
        if isinstance(latents, DiagonalGaussian):
            noise = latents.log_var.detach().double().exp().expand_as(mean).flatten(1)
        rows, columns = (cosine_basis(size).to(z) for size in self.grid)
        coefficients = rows @ z.view(-1, self.channels, *self.grid) @ columns.T
        of_images = {"counts": torch.ones_like(z[:, 0]), "sums": z, "variances": noise}
        for name, values in {**of_images, "energies": coefficients.square().flatten(1)}.items():
            getattr(self, name).add_(sums_by_group(values, index, self.groups))
        one_hot = F.one_hot(y, self.num_classes).to(z) if self.num_classes else z[:, :0]
        self.class_counts += sums_by_group(one_hot, index, self.groups)
        for group in range(self.groups if self.has_products else 0):
            mine = index % self.groups == group
            self.products[group] += z[mine].T @ z[mine]
            self.class_sums[group] += one_hot[mine].T @ z[mine]
        if self.num_classes:
            odd = index % 2 == 1
            self.tested.append(mean.flatten(1)[odd])
            self.tested_labels.append(y[odd])
            self.tested_index.append(index[odd])

    def compute(self) -> LatentStructure:
        """The numbers over all ranks, equal on each."""
        number = self._rows(self.counts)[:, None]
        mean, noise, energy = (self._rows(s) / number for s in (self.sums, self.variances, self.energies))
        energy = energy.view(-1, self.channels, *self.grid) + self._noise_energy(noise)
        channel_mean = mean.view(*energy.shape[:2], -1).mean(2)
        energy[..., 0, 0] -= math.prod(self.grid) * channel_mean.square()
        variance = energy.mean((2, 3))  # the transform is orthonormal
        std, spectrum = variance.sqrt(), (energy / variance[..., None, None]).mean(1)
        channel_noise = noise.view(*energy.shape[:2], -1).mean(2)
        numbers = {
            "latent_high_frequency": (spectrum * above_half_nyquist(*self.grid).to(spectrum)).mean((1, 2)),
            "latent_noise": (channel_noise / variance).mean(1),
            "latent_std_ratio": std.amax(1) / std.amin(1),
        }
        if self.num_classes:
            scale = std.repeat_interleave(math.prod(self.grid), 1)
            numbers["latent_probe_accuracy"] = self._probe_accuracy(scale)
        if self.has_products and float(number.min()) > mean.shape[1]:
            of_means = self._rows(self.products) / number[..., None] - mean[:, :, None] * mean[:, None, :]
            numbers["latent_gaussian_nats"] = total_correlation(of_means + torch.diag_embed(noise))
        shown = {name: numbers[name] for name in self.names if name in numbers}
        return LatentStructure(shown, std[0], spectrum[0])

    def _rows(self, sums: Tensor) -> Tensor:
        """Sums over all images, and without each group: ``(groups, *shape) -> (1 + GROUPS, *shape)`` or ``(1, ...)``.

        Of two groups, which are no groups of `lit_vae.intervals`, only those over all images.
        """
        return without_each(sums, self.counts)[0][: None if self.groups == GROUPS else 1]

    def _noise_energy(self, noise: Tensor) -> Tensor:
        """Expected energy of each coefficient of independent noise: variances ``(R, d) -> (R, c, h, w)``."""
        rows, columns = (cosine_basis(size).square().to(noise) for size in self.grid)
        return rows @ noise.view(-1, self.channels, *self.grid) @ columns.T

    def _probe_accuracy(self, scale: Tensor) -> Tensor:
        """Accuracy of the probe, for latents that are divided by ``scale (R, d)``: ``-> (R,)``."""
        even = (torch.arange(self.groups) % 2 == 0).to(scale)
        counts, sums, products, class_counts, class_sums = (
            self._rows(state * even.view(-1, *(1 for _ in state.shape[1:])))
            for state in (self.counts, self.sums, self.products, self.class_counts, self.class_sums)
        )
        mean, share = sums / counts[:, None] / scale, class_counts / counts[:, None]
        covariance = products / counts[:, None, None] / (scale[:, :, None] * scale[:, None, :])
        covariance -= mean[:, :, None] * mean[:, None, :]
        with_labels = class_sums / counts[:, None, None] / scale[:, None, :] - share[:, :, None] * mean[:, None, :]
        penalty = RIDGE * torch.eye(scale.shape[1]).to(scale)
        weights, _ = torch.linalg.solve_ex(covariance + penalty, with_labels.mT)
        bias = share - (mean[:, None, :] @ weights)[:, 0]
        z, y, index = map(dim_zero_cat, (self.tested, self.tested_labels, self.tested_index))
        accuracies = []
        for row in range(len(scale)):
            kept = index % self.groups != row - 1  # the first row keeps all
            scores = z[kept].double() / scale[row] @ weights[row] + bias[row]
            hits = (scores.argmax(1) == y[kept]).double()
            accuracies.append(hits.where(scores.isfinite().all(1), math.nan).mean())
        return torch.stack(accuracies)
