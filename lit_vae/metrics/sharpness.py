"""How much fine structure of the originals is left in their reconstructions: 1 is as sharp, 0 is all blurred away.

Sharper is not nearer: noise is sharp, too. Read it beside PSNR or a perceptual distance.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

SMALLEST_SIZE = 4
"""Height and width, in pixels, below which an image has no fine structure to speak of."""


def high_frequency_energy(x: Tensor) -> Tensor:
    """Energy above half the Nyquist frequency, summed over channels: ``(B, C, H, W) -> (B,)`` float64.

    ``1/(HW) sum |DFT(x)|^2`` over the frequencies with ``|f| > 1/4`` cycles a pixel, the corners beyond 1/2 included;
    in squared units of ``x``, summed over pixels. The transform takes an image as periodic: the step from one border to
    the opposite one counts, in an image and its reconstruction alike.

    >>> checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 1, 4, 4)
    >>> high_frequency_energy(checkerboard)  # all of it, 64
    tensor([64.], dtype=torch.float64)
    """
    spectrum = torch.fft.fft2(x.double(), norm="ortho").abs().square().sum(1)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64, device=x.device) for size in x.shape[-2:])
    high = rows[:, None].square() + columns.square() > 0.25**2
    return (spectrum * high).sum((1, 2))


def laplacian_variance(x: Tensor) -> Tensor:
    """Variance over places of the five-point Laplacian, summed over channels: ``(B, C, H, W) -> (B,)`` float64.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000. Inner pixels only: no border is made up.
    """
    x = x.double()
    inner = x[..., 1:-1, 1:-1]
    neighbours = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return (neighbours - 4.0 * inner).var((2, 3), correction=0).sum(1)


class SharpnessMetric(Metric):
    """Ratios of reconstructions to originals: ``sharpness`` of `high_frequency_energy`, ``laplacian_ratio``.

    Ratios of *sums* over all images and ranks, not means of the images' ratios: an image with next to no fine structure
    would decide over such a mean, and one with none would make it infinite.
    """

    names = ("sharpness", "laplacian_ratio")
    full_state_update = False
    reconstructed: Tensor
    original: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("reconstructed", "original"):
            self.add_state(name, torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x_hat: Tensor, x: Tensor) -> None:
        """Take in reconstructions and originals ``(B, C, H, W)``, of at least `SMALLEST_SIZE` pixels each way."""
        for name, images in (("reconstructed", x_hat), ("original", x)):
            sums = torch.stack([high_frequency_energy(images).sum(), laplacian_variance(images).sum()])
            setattr(self, name, getattr(self, name) + sums)

    def compute(self) -> dict[str, Tensor]:
        """Both ratios by name."""
        sharpness, laplacian_ratio = (self.reconstructed / self.original).unbind()
        return dict(zip(self.names, (sharpness, laplacian_ratio), strict=True))
