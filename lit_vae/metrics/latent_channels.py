"""Mean and standard deviation of every channel of latents over a set, and what latent diffusion scales them by."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_vae.distributions import DiagonalGaussian


class LatentMoments(NamedTuple):
    """Of latents with c channels, of a vector its c dimensions; float64.

    A diffusion model is trained on ``(z - shift) * scale_factor``, of mean zero and variance one over the set.
    """

    mean: Tensor
    """``(c,)``."""

    std: Tensor
    """``(c,)``."""

    shift: Tensor
    """The mean of all values, ``()``."""

    total_std: Tensor
    """The standard deviation of all values about that mean, ``()``."""

    num_images: int

    def report(self) -> dict[str, Any]:
        """Plain numbers; ``scale_factor`` is 1 / ``total_std``, and infinite where all latents are the same number."""
        total_std = float(self.total_std)
        return {
            "mean": torch.atleast_1d(self.mean).tolist(),  # torchmetrics makes a scalar of a single channel
            "std": torch.atleast_1d(self.std).tolist(),
            "shift_factor": float(self.shift),
            "scale_factor": 1.0 / total_std if total_std > 0.0 else float("inf"),
            "num_images": self.num_images,
        }


class LatentChannels(Metric):
    """`LatentMoments` over batches of any size and over ranks, exact: one draw of every posterior is never needed.

    By the law of total variance, ``Var z = Var E[z|x] + E Var[z|x]``, within a batch, and again between batches. Values
    of a channel at all its places count alike. ``scale_factor`` is latent diffusion's (Rombach et al., "High-Resolution
    Image Synthesis with LDMs", 2022, app. G), which is of one batch there, and of draws.
    """

    full_state_update = False
    counts: list[Tensor]
    means: list[Tensor]
    variances: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("counts", "means", "variances"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, latents: DiagonalGaussian | Tensor) -> None:
        """Take in posteriors of a batch, of which draws are meant, or latents as they are: ``(B, c, *places)``."""
        z = (latents if isinstance(latents, Tensor) else latents.mean).detach().double()
        values = z.reshape(*z.shape[:2], -1)
        mean = values.mean((0, 2))
        variance = (values - mean[:, None]).square().mean((0, 2))
        if isinstance(latents, DiagonalGaussian):
            within = latents.log_var.detach().double().exp().expand_as(z)
            variance = variance + within.reshape(values.shape).mean((0, 2))
        self.counts.append(torch.full_like(mean[:1], len(z)))
        self.means.append(mean[None])
        self.variances.append(variance[None])

    def compute(self) -> LatentMoments:
        """Over all batches of all ranks."""
        if not len(self.counts):
            raise ValueError("LatentChannels: compute was called before any update. Give it latents first.")
        counts, means, variances = (dim_zero_cat(state) for state in (self.counts, self.means, self.variances))
        weights = (counts / counts.sum())[:, None]
        mean = (weights * means).sum(0)
        variance = (weights * (variances + (means - mean).square())).sum(0)
        shift = mean.mean()
        total = (variance + (mean - shift).square()).mean()
        return LatentMoments(mean, variance.sqrt(), shift, total.sqrt(), int(counts.sum()))
