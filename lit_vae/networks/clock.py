"""What a denoising network is told beside the state: the noise level, and a condition such as the class.

A denoising network maps ``z (B, C, H, W), lam (B,), cond (B, cond_dim) or None -> (B, C, H, W)``. Its clock ``lam`` is
the log signal-to-noise ratio ``ln(alpha^2 / sigma^2)``.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.images import Shape
from lit_vae.networks.layers import check_condition

DenoiserFactory = Callable[[Shape, int], nn.Module]
"""``(shape (C, H, W), cond_dim) -> network``: `UNet` or `DiT` with its other arguments filled in."""

FEATURES = 256
SLOWEST, FASTEST = 1.0 / 20.0, 10.0
"""In radians per unit of the clock, which runs from about -20 to 20. The slowest sine is monotone on that range. The
fastest one turns by a radian between two clocks 0.1 apart."""


def clock_features(lam: Tensor) -> Tensor:
    """Cosines and sines of the clock at frequencies in a geometric series: ``(B,) -> (B, FEATURES)``, in its dtype."""
    exponents = torch.linspace(math.log(SLOWEST), math.log(FASTEST), FEATURES // 2, dtype=lam.dtype, device=lam.device)
    phases = lam[:, None] * exponents.exp()
    return torch.cat([phases.cos(), phases.sin()], 1)


class ClockEmbedding(nn.Module):
    """Clock and condition in one vector, by which every block is modulated.

    ``lam (B,), cond (B, cond_dim) or None -> (B, width)``. It is computed without autocast, which would round the
    noise level and save nothing.
    """

    def __init__(self, width: int, cond_dim: int) -> None:
        super().__init__()
        self.cond_dim = cond_dim
        self.hidden = nn.Linear(FEATURES, width)
        self.out = nn.Linear(width, width)
        self.cond = nn.Linear(cond_dim, width, bias=False) if cond_dim else None

    def forward(self, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        """See the class."""
        check_condition(self, cond)
        dtype = self.hidden.weight.dtype
        with torch.autocast(lam.device.type, enabled=False):
            embedded = self.out(F.silu(self.hidden(clock_features(lam).to(dtype))))
            if self.cond is not None and cond is not None:
                embedded = embedded + self.cond(cond.to(dtype))
            return F.silu(embedded)
