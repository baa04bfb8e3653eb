"""Energy of images and of maps of latents by spatial frequency."""

import math

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


def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II: row k is the wave of ``k / (2 size)`` cycles per pixel, ``(size, size)`` float64.

    Unlike a Fourier transform, it sees no step between opposite borders, which is most of the detail of a small map.
    """
    numbers = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * numbers[:, None] * (numbers + 0.5)) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis


def above_half_nyquist(height: int, width: int) -> Tensor:
    """Which waves of a map have more than 1/4 cycle per pixel, in any direction: ``(height, width)`` bool.

    >>> above_half_nyquist(3, 3).long()
    tensor([[0, 0, 1],
            [0, 0, 1],
            [1, 1, 1]])
    """
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    return 4 * ((rows * width).square() + (columns * height).square()) > (height * width) ** 2  # whole numbers: no ties


def mean_by_frequency(energy: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the waves of about the same frequency: ``(height, width) -> (N,), (N,)``, cycles per pixel and energy.

    The n-th mean is of the waves whose frequency rounds to ``n / (2 max(height, width))``, so the first is of the
    constant alone.
    """
    height, width = energy.shape
    rows, columns = (torch.arange(size).to(energy) / (2 * size) for size in (height, width))
    frequency = (rows[:, None].square() + columns.square()).sqrt().flatten()
    ring = (2 * max(height, width) * frequency).round().long()
    counts = ring.bincount()
    sums = (torch.zeros(len(counts)).to(energy).index_add_(0, ring, v) for v in (frequency, energy.flatten()))
    mean_frequency, mean_energy = (total / counts for total in sums)
    return mean_frequency, mean_energy
