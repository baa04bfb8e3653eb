"""Mean and standard deviation of each latent channel over a data set, and the scale factor of latent diffusion."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lit_vae.distributions import DiagonalGaussian


class LatentMoments(NamedTuple):
    """Moments of latents with c channels (or of vectors with c dimensions), in float64.

    A diffusion model is trained on ``(z - shift) * scale_factor``, which has mean zero and variance one over the set.
    """

    mean: Tensor
    """``(c,)``."""

    std: Tensor
    """``(c,)``."""

    shift: Tensor
    """The mean of all values, ``()``."""

    total_std: Tensor
    """The standard deviation of all values, ``()``."""

    num_images: int

    def report(self) -> dict[str, Any]:
        """Plain numbers. ``scale_factor`` is 1 / ``total_std``; infinite if all latent values are equal."""
        total_std = float(self.total_std)
        return {
            "mean": torch.atleast_1d(self.mean).tolist(),  # torchmetrics turns a single channel into a scalar
            "std": torch.atleast_1d(self.std).tolist(),
            "shift_factor": float(self.shift),
            "scale_factor": 1.0 / total_std if total_std > 0.0 else float("inf"),
            "num_images": self.num_images,
        }


class LatentChannels(Metric):
    """`LatentMoments` over all batches and ranks, exact: it uses posteriors instead of draws from them.

    By the law of total variance, ``Var z = Var E[z|x] + E Var[z|x]``, within and between batches. All positions of a
    channel have the same weight. ``scale_factor`` is that of latent diffusion (Rombach et al., "High-Resolution Image
    Synthesis with LDMs", 2022, app. G), where it is estimated from draws for one batch.
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
        """Add the posteriors of a batch (the moments are of draws from them), or latents: ``(B, c, *grid)``."""
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
        """The moments over all batches of all ranks."""
        if not len(self.counts):
            raise ValueError("LatentChannels: compute was called before any update. Give it latents first.")
        counts, means, variances = (dim_zero_cat(state) for state in (self.counts, self.means, self.variances))
        weights = (counts / counts.sum())[:, None]
        mean = (weights * means).sum(0)
        variance = (weights * (variances + (means - mean).square())).sum(0)
        shift = mean.mean()
        total = (variance + (mean - shift).square()).mean()
        return LatentMoments(mean, variance.sqrt(), shift, total.sqrt(), int(counts.sum()))
