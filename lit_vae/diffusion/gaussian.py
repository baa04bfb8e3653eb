"""Gaussian diffusion of images or latents: its loss and its bound of log p(x)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.diffusion.noise_schedules import NoiseSchedule
from lit_vae.diffusion.objectives import Bound, DiffusionObjective, NoiseLevels
from lit_vae.diffusion.predictions import Prediction

Network = Callable[[Tensor, Tensor], Tensor]
"""``(z (B, *shape), lam (B,)) -> (B, *shape)``."""


class AtData(NamedTuple):
    """What the last state says of x: ``x = mean + noise``, ``(B, *shape)`` each."""

    mean: Tensor
    log_var: Tensor


class GaussianDiffusion(nn.Module):
    """The states ``q(z_t | x) = N(alpha x, sigma^2 I)``, and what a network learns of them.

    ``-log p(x) <= KL(q(z_1 | x) || N(0, I)) + E[-log p(x | z_0)] + diffusion`` (Kingma et al., "Variational Diffusion
    Models", 2021, eq. 11). The three are `prior_loss`, the log-probability of x by `at_data`, and `diffusion_loss`.

    Args:
        schedule: ``lam(t)``.
        prediction: what the network's output means.
        objective: what the network is trained on.
    """

    def __init__(self, schedule: NoiseSchedule, prediction: Prediction, objective: DiffusionObjective) -> None:
        super().__init__()
        if schedule.is_learned and not isinstance(objective, Bound):
            raise ValueError(
                f"GaussianDiffusion: {type(schedule).__name__} learns from the bound in continuous time, but objective"
                f" is {type(objective).__name__}. Take lit_vae.diffusion.Bound, or a schedule without parameters."
            )
        self.schedule, self.prediction, self.objective = schedule, prediction, objective

    def diffusion_loss(self, network: Network, x: Tensor, levels: NoiseLevels, eps: Tensor) -> Tensor:
        """``weight |eps - eps_hat|^2`` of each x at its level, ``(B,)``; nats if the objective is a bound."""
        lam = levels.lam
        z = per_image(alpha(lam), x) * x + per_image(sigma(lam), x) * eps
        output = network(self.prediction.network_input(z, lam), lam)
        error = (eps - self.prediction.eps(z, output, lam)).square().flatten(1).sum(1)
        loss = levels.weight * error
        # E loss does not depend on these, so they learn from E loss^2, whose gradient has the factor 2 loss
        for inside in (t for t in levels.inside if t.requires_grad):
            inside.register_hook(lambda gradient: gradient * (2.0 * loss.detach()))
        return loss

    def prior_loss(self, x: Tensor) -> Tensor:
        """``KL(q(z_1 | x) || N(0, I)) = 1/2 sum(alpha^2 x^2 + sigma^2 - ln sigma^2 - 1)``: ``(B,)`` nats."""
        signal = self._end(self.schedule.lam_min, x).sigmoid()  # alpha^2 = 1 - sigma^2
        return 0.5 * (signal * (x.square() - 1.0) - torch.log1p(-signal)).flatten(1).sum(1)

    def at_data(self, x: Tensor, eps: Tensor) -> AtData:
        """The least noisy state of x, in units of x: ``z_0 / alpha_0 = x + eps / sqrt(SNR)``."""
        lam = self._end(self.schedule.lam_max, x)
        mean = x + torch.exp(-0.5 * lam) * eps
        return AtData(mean, (-lam).expand_as(mean))

    def _end(self, lam: float | Tensor, like: Tensor) -> Tensor:
        return torch.as_tensor(lam, dtype=like.dtype, device=like.device)
