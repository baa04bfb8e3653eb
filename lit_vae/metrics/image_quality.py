"""Error and similarity of reconstructions, per image: MSE, PSNR, SSIM, MS-SSIM."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lit_vae.metrics.split_mean import SplitMean

GAUSSIAN_WINDOW = 11
UNIFORM_WINDOW = 7
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales of MS-SSIM, the finest first."""

LEAST_MSE = 4e-10
"""A PSNR of 100 dB for values in [-1, 1]: two images then agree up to float32 rounding."""


class Window(NamedTuple):
    """The window of an SSIM: its ``name``, its odd ``size`` in pixels and whether it is ``gaussian``."""

    name: str
    size: int
    gaussian: bool


def ssim_window(height: int, width: int) -> Window | None:
    """The SSIM that fits images of this size, or None.

    ``ssim``: the usual Gaussian window of 11 x 11 pixels, standard deviation 1.5 (Wang et al. 2004). Smaller images
    (8 x 8 digits) get ``ssim_uniform7`` with scikit-image's default uniform window of 7 x 7. Do not compare the two.
    Below 7 pixels there is none.
    """
    if min(height, width) >= GAUSSIAN_WINDOW:
        return Window("ssim", GAUSSIAN_WINDOW, True)
    if min(height, width) >= UNIFORM_WINDOW:
        return Window(f"ssim_uniform{UNIFORM_WINDOW}", UNIFORM_WINDOW, False)
    return None


def has_scales(height: int, width: int) -> bool:
    """Whether the coarsest of the five scales of MS-SSIM still holds a window: from 176 pixels on."""
    return min(height, width) // 2 ** (len(SCALES) - 1) >= GAUSSIAN_WINDOW


def mse_per_image(x_hat: Tensor, x: Tensor) -> Tensor:
    """Squared error averaged over the values of an image, in [-1, 1]: ``(B, C, H, W) -> (B,)`` float64."""
    return (x_hat.double() - x.double()).square().flatten(1).mean(1)


def psnr_per_image(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio ``10 log10(2^2 / mse)`` of values in [-1, 1]: ``(B,) -> (B,)`` dB, at most 100.

    >>> mse = mse_per_image(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.2))
    >>> psnr_per_image(mse)
    tensor([20.0000], dtype=torch.float64)
    """
    return 10.0 * torch.log10(4.0 / mse.clamp(min=LEAST_MSE))


def ssim_per_image(x_hat: Tensor, x: Tensor, window: Window) -> Tensor:
    """Structural similarity averaged over windows and channels: ``(B, C, H, W)`` in [-1, 1] ``-> (B,)``.

    Wang et al., "Image Quality Assessment", 2004, eq. 13, K1 = 0.01, K2 = 0.03. Images are mapped to [0, 1] first,
    because the luminance term is a ratio of means. Only windows inside the image count, as in the paper's code and in
    scikit-image (torchmetrics includes the mirrored border).
    """
    _, at_each_pixel = _similarity(_to_unit(x_hat), _to_unit(x), window, return_full_image=True)
    border = window.size // 2
    inner = at_each_pixel[..., border : at_each_pixel.shape[-2] - border, border : at_each_pixel.shape[-1] - border]
    return inner.flatten(1).mean(1)


def ms_ssim_per_image(x_hat: Tensor, x: Tensor) -> Tensor:
    """Structural similarity over five scales, each half as large as the last: ``(B, C, H, W)`` in [-1, 1] ``-> (B,)``.

    Wang et al., "Multiscale Structural Similarity for Image Quality Assessment", 2003, eq. 7: contrast and structure
    at all scales, luminance only at the coarsest, windows and range as in `ssim_per_image`. A negative mean of a scale
    counts as zero, because its power is undefined.
    """
    window = Window("ssim", GAUSSIAN_WINDOW, True)
    product = torch.ones(len(x), device=x.device)
    for weight in SCALES[:-1]:
        _, structure = _similarity(_to_unit(x_hat), _to_unit(x), window, return_contrast_sensitivity=True)
        product = product * structure.relu().pow(weight)
        x_hat, x = F.avg_pool2d(x_hat.float(), 2), F.avg_pool2d(x.float(), 2)
    return product * ssim_per_image(x_hat, x, window).relu().pow(SCALES[-1])


def _to_unit(x: Tensor) -> Tensor:
    return (x.float() + 1.0) / 2.0


def _similarity(x_hat: Tensor, x: Tensor, window: Window, **also: bool) -> tuple[Tensor, Tensor]:
    """SSIM of images in [0, 1], with the extra output that ``also`` asks for."""
    return structural_similarity_index_measure(  # type: ignore[return-value]
        x_hat,
        x,
        gaussian_kernel=window.gaussian,
        sigma=1.5,
        kernel_size=window.size,
        reduction="none",
        data_range=1.0,
        **also,
    )


class ImageQualityMetric(SplitMean):
    """Means over images of ``mse``, ``psnr``, the SSIM of `ssim_window` and ``ms_ssim``, in the order of ``names``.

    ``psnr`` is the mean of the images' PSNRs, not the PSNR of the mean error. Every image has the same weight.
    """

    def __init__(self, height: int, width: int) -> None:
        self.window = ssim_window(height, width)
        self.has_scales = has_scales(height, width)
        self.names = ["mse", "psnr"] + ([self.window.name] if self.window else []) + ["ms_ssim"] * self.has_scales
        super().__init__((len(self.names),))

    def update(self, x_hat: Tensor, x: Tensor, index: Tensor | None = None) -> None:  # type: ignore[override]
        """Add reconstructions and originals ``(B, C, H, W)`` in [-1, 1]; ``index`` as in `SplitMean`."""
        mse = mse_per_image(x_hat, x)
        terms = [mse, psnr_per_image(mse)]
        if self.window:
            terms.append(ssim_per_image(x_hat, x, self.window).double())
        if self.has_scales:
            terms.append(ms_ssim_per_image(x_hat, x).double())
        super().update(torch.stack(terms, 1), len(x), index)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """The means by name, each as the rows of `SplitMean`."""
        return dict(zip(self.names, super().compute().unbind(1), strict=True))
