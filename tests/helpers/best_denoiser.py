"""A diffusion model of independent normal latents that cannot be better."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lit_vae.diffusion import Bound, GaussianDiffusion, LinearLogSNR, Original
from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.models import LatentDiffusion

ADAM = partial(torch.optim.Adam, lr=1e-3)
SHAPE = [2, 3, 3]
STD = 0.7


class Best(nn.Module):
    """``E[x | z]`` for independent normal latents of standard deviation `STD`."""

    def __init__(self, shape: Any, cond_dim: int) -> None:
        super().__init__()
        self.var = nn.Parameter(torch.tensor(STD**2))

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        a, s = per_image(alpha(lam), z), per_image(sigma(lam), z)
        return a * self.var * z / (a**2 * self.var + s**2)


def prior(**given: Any) -> LatentDiffusion:
    process = GaussianDiffusion(LinearLogSNR(8.0, -8.0), Original(), Bound())
    return LatentDiffusion(SHAPE, Best, process, ADAM, **given).eval()
