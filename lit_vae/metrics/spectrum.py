"""Energy of images by spatial frequency."""

import torch
from torch import Tensor


def energy_by_frequency(x: Tensor) -> tuple[Tensor, Tensor]:
    """Energy in rings of frequencies, summed over images and channels: ``(B, C, H, W) -> (N,), (N,)`` float64.

    The energy is ``|DFT(x)|^2 / (HW)``, as in `lit_vae.metrics.sharpness`. Ring n of N = min(H, W) // 2 has the
    frequencies of ``(n / 2N, (n + 1) / 2N]`` cycles per pixel; so the mean of an image and the corners are in none.

    >>> stripes = torch.tensor([1.0, -1.0]).tile(1, 1, 8, 4)  # two pixels a cycle
    >>> frequency, energy = energy_by_frequency(stripes)
    >>> frequency, energy
    (tensor([0.0625, 0.1875, 0.3125, 0.4375], dtype=torch.float64), tensor([ 0.,  0.,  0., 64.], dtype=torch.float64))
    """
    height, width = x.shape[-2:]
    rings = min(height, width) // 2
    spectrum = torch.fft.fft2(x.double(), norm="ortho").abs().square().sum((0, 1))
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64, device=x.device) for size in (height, width))
    ring = (2 * rings * (rows[:, None].square() + columns.square()).sqrt()).sub(1e-9).ceil().long() - 1
    inside = (ring >= 0) & (ring < rings)
    energy = torch.zeros(rings, dtype=torch.float64, device=x.device).index_add_(0, ring[inside], spectrum[inside])
    frequency = (torch.arange(rings, dtype=torch.float64, device=x.device) + 0.5) / (2 * rings)
    return frequency, energy
