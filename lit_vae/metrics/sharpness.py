"""Fine structure of reconstructions relative to their originals: 1 is equally sharp, 0 is fully blurred.

Noise is sharp, too: read it together with PSNR or a perceptual distance.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_vae.intervals import GROUPS
from lit_vae.metrics.jackknife import sums_by_group, without_each

SMALLEST_SIZE = 4
"""Smallest height and width of an image, in pixels."""


def high_frequency_energy(x: Tensor) -> Tensor:
    """Energy above half the Nyquist frequency, summed over channels: ``(B, C, H, W) -> (B,)`` float64.

    ``1/(HW) sum |DFT(x)|^2`` over frequencies with ``|f| > 1/4`` cycles per pixel, including the corners beyond 1/2; in
    squared units of ``x``, summed over pixels. The transform is periodic: the step between opposite borders counts, in
    an image and in its reconstruction.

    >>> checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 1, 4, 4)
    >>> high_frequency_energy(checkerboard)  # all of it, 64
    tensor([64.], dtype=torch.float64)
    """
    spectrum = torch.fft.fft2(x.double(), norm="ortho").abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64, device=x.device) for size in x.shape[-2:])
    high = rows[:, None].square() + columns.square() > 0.25**2
    return (spectrum * high).sum((1, 2))


def laplacian_variance(x: Tensor) -> Tensor:
    """Variance of the five-point Laplacian over inner pixels, summed over channels: ``(B, C, H, W) -> (B,)`` float64.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000.
    """
    x = x.double()
    inner = x[..., 1:-1, 1:-1]
    neighbours = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (neighbours - 4.0 * inner).var((2, 3), correction=0).sum(1)


class SharpnessMetric(Metric):
    """Ratios of reconstructions to originals: ``sharpness`` of `high_frequency_energy`, ``laplacian_ratio``.

    They are ratios of *sums* over all images and ranks: an image with little fine structure would dominate a mean of
    ratios.
    """

    names = ("sharpness", "laplacian_ratio")
    full_state_update = False
    reconstructed: Tensor
    original: Tensor
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("reconstructed", "original"):
            self.add_state(name, torch.zeros(GROUPS, 2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(GROUPS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x_hat: Tensor, x: Tensor, index: Tensor | None = None) -> None:
        """Add reconstructions and originals ``(B, C, H, W)`` with sides of at least `SMALLEST_SIZE` pixels.

        The positions ``index (B,)`` of the images in the split give the ratios without each group of images.
        """
        for name, images in (("reconstructed", x_hat), ("original", x)):
            energies = torch.stack([high_frequency_energy(images), laplacian_variance(images)], 1)
            setattr(self, name, getattr(self, name) + sums_by_group(energies, index))
        self.counts += sums_by_group(x.new_ones(len(x)), index)

    def compute(self) -> dict[str, Tensor]:
        """Both ratios by name, each with that without each group: ``(1 + GROUPS,)`` or ``(1,)``."""
        reconstructed, _ = without_each(self.reconstructed, self.counts)
        original, _ = without_each(self.original, self.counts)
        return dict(zip(self.names, (reconstructed / original).unbind(1), strict=True))
