"""Guidance: another expected image in place of the network's, for samples that are more typical of their class.

A guided field is that of no diffusion process in general: scale 2 does not sample ``p(x | y)^2 / p(x)``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_vae.diffusion.log_snr import alpha, sigma
from lit_vae.diffusion.noise_schedules import LogSNR
from lit_vae.diffusion.samplers import Denoise
from lit_vae.ranges import NotNegativeFloat, checked


class ClassifierFree:
    """``x_hat = (1 - scale) x_hat(no class) + scale x_hat(class)``.

    Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022, eq. 6, with their ``w = scale - 1``. The formula is the
    same for expected images, noises and velocities, because each is an affine function of the others.

    Args:
        scale: 1: none, the conditional network alone, with one call of the network.
        interval: guide at ``lo <= lam < hi`` only (Kynkaanniemi et al., "Applying Guidance in a Limited Interval in
            Sample and Distribution Quality", 2024). The expected image jumps at the ends. `with_nodes` makes them nodes
            of a grid: then `DDIM` and `Heun` keep their order. `DPMSolverPlusPlus2M`, which extrapolates over the
            jump, is of order 1 there.

    Raises:
        ValueError: an argument is out of range.
    """

    @checked
    def __init__(self, scale: NotNegativeFloat = 1.0, interval: tuple[LogSNR, LogSNR] | None = None) -> None:
        if interval is not None and interval[0] >= interval[1]:
            raise ValueError(
                f"ClassifierFree: interval (={list(interval)}) must be [lo, hi] with lo < hi, in log-SNR: the first"
                " is nearer to noise."
            )
        self.scale, self.interval = scale, interval

    def __str__(self) -> str:
        where = "" if self.interval is None else f" at log-SNR {self.interval[0]:g} to {self.interval[1]:g}"
        return f"guidance {self.scale:g}{where}"

    def __call__(self, strong: Denoise, weak: Denoise) -> Denoise:
        """The guided network, from those with the class and without.

        The weak one may also be a worse network with the class: autoguidance (Karras et al., "Guiding a Diffusion Model
        with a Bad Version of Itself", 2024).
        """
        if self.scale == 1.0:
            return strong

        def guided(z: Tensor, lam: Tensor) -> Tensor:
            x_hat = strong(z, lam)
            # lerp subtracts the smaller part from the nearer end, so scales of 0 and 1 are exact
            return torch.lerp(weak(z, lam), x_hat, self.scale) if self.acts_at(lam) else x_hat

        return guided

    def acts_at(self, lam: Tensor) -> bool:
        """Whether ``lam ()`` is in the interval."""
        return self.interval is None or self.interval[0] <= lam.item() < self.interval[1]


class ClassifierGuidance:
    """``eps_hat - scale sigma grad_z log p(y | z)``: Dhariwal and Nichol 2021, "Diffusion Models Beat GANs", eq. 14.

    Args:
        scale: 0: none. On a network without classes, 1 samples ``p(x | y)``, and scales mean what those of
            `ClassifierFree` do.
    """

    @checked
    def __init__(self, scale: NotNegativeFloat = 1.0) -> None:
        self.scale = scale

    def __call__(self, denoise: Denoise, log_prob: Callable[[Tensor, Tensor], Tensor]) -> Denoise:
        """The guided network, by the ``(z (B, ...), lam ()) -> log p(y | z) (B,)`` of a classifier trained on states z.

        The gradient is taken at the state, not at the mean of the next.
        """
        if self.scale == 0.0:
            return denoise

        def guided(z: Tensor, lam: Tensor) -> Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                state = z.clone().requires_grad_()
                (slope,) = torch.autograd.grad(log_prob(state, lam).sum(), state)
            return denoise(z, lam) + self.scale * sigma(lam).square() / alpha(lam) * slope

        return guided
