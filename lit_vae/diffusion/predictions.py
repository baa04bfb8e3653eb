"""What the output of a denoising network means. Given the state, all meanings are linear in one another.

Notation: ``z = alpha x + sigma eps``. Each class gives ``eps_hat`` and ``x_hat`` as ``a z + b output`` by a formula of
its own: the one from the other would subtract nearly equal numbers where there is little noise, or little signal.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.ranges import PositiveFloat, checked

Coefficients = tuple[Tensor | float, Tensor]
"""``(a, b)`` of ``a z + b output``, each in the shape of ``lam``."""


class Prediction(ABC):
    """The meaning of a network's output ``(B, *shape)``, given the state ``z (B, *shape)`` and ``lam (B,)``."""

    def eps(self, z: Tensor, output: Tensor, lam: Tensor) -> Tensor:
        """The noise in the state, ``(B, *shape)``."""
        return _combined(z, output, *self.eps_coefficients(lam))

    def x(self, z: Tensor, output: Tensor, lam: Tensor) -> Tensor:
        """The image in the state, ``(B, *shape)``."""
        return _combined(z, output, *self.x_coefficients(lam))

    def error_ratio(self, lam: Tensor) -> Tensor:
        """Squared error of this prediction in units of the squared error of the noise, in the shape of ``lam``."""
        return self.eps_coefficients(lam)[1] ** -2

    def network_input(self, z: Tensor, lam: Tensor) -> Tensor:
        """What the network sees of the state: by default the state itself."""
        return z

    @abstractmethod
    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """Coefficients of ``eps_hat``."""

    @abstractmethod
    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """Coefficients of ``x_hat``."""


class Noise(Prediction):
    """``eps`` (Ho et al., "Denoising Diffusion Probabilistic Models", 2020, eq. 14)."""

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """The output itself."""
        return 0.0, torch.ones_like(lam)

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z - sigma eps) / alpha``."""
        return 1.0 / alpha(lam), -sigma(lam) / alpha(lam)


class Original(Prediction):
    """``x``, the image."""

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z - alpha x) / sigma``."""
        return 1.0 / sigma(lam), -alpha(lam) / sigma(lam)

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """The output itself."""
        return 0.0, torch.ones_like(lam)


class Velocity(Prediction):
    """``v = alpha eps - sigma x`` (Salimans and Ho, "Progressive Distillation", 2022, appendix D)."""

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """``sigma z + alpha v``."""
        return sigma(lam), alpha(lam)

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """``alpha z - sigma v``."""
        return alpha(lam), -sigma(lam)


class Score(Prediction):
    """``grad log p(z)``, which is ``-E[eps | z] / sigma`` (Song et al., "Score-Based Generative Modeling", 2021)."""

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """``-sigma score``."""
        return 0.0, -sigma(lam)

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z + sigma^2 score) / alpha``."""
        return 1.0 / alpha(lam), sigma(lam) ** 2 / alpha(lam)


class FlowVelocity(Prediction):
    """``u = eps - x``, the velocity of the linear path (Lipman et al. 2023; Ma et al., "SiT", 2024).

    A point of that path is ``z / (alpha + sigma)``.
    """

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z + alpha u) / (alpha + sigma)``."""
        total = alpha(lam) + sigma(lam)
        return 1.0 / total, alpha(lam) / total

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z - sigma u) / (alpha + sigma)``."""
        total = alpha(lam) + sigma(lam)
        return 1.0 / total, -sigma(lam) / total


class Preconditioned(Prediction):
    """F of ``x_hat = c_skip y + c_out F(c_in y)``, for ``y = z / alpha`` (Karras et al. 2022, eq. 7 and table 1).

    With ``data_std: 1`` it is minus the velocity ``v``.

    Args:
        data_std: standard deviation of the data.
    """

    @checked
    def __init__(self, data_std: PositiveFloat = 0.5) -> None:
        self.data_std = data_std

    def _state_std(self, lam: Tensor) -> Tensor:
        return (sigma(lam) ** 2 + (alpha(lam) * self.data_std) ** 2).sqrt()

    def eps_coefficients(self, lam: Tensor) -> Coefficients:
        """``(z - alpha x_hat) / sigma``, simplified."""
        std = self._state_std(lam)
        return sigma(lam) / std**2, -alpha(lam) * self.data_std / std

    def x_coefficients(self, lam: Tensor) -> Coefficients:
        """``c_skip / alpha`` and ``c_out``."""
        std = self._state_std(lam)
        return alpha(lam) * self.data_std**2 / std**2, sigma(lam) * self.data_std / std

    def network_input(self, z: Tensor, lam: Tensor) -> Tensor:
        """``c_in y``, the state in units of its standard deviation."""
        return z / per_image(self._state_std(lam), z)


def _combined(z: Tensor, output: Tensor, of_z: Tensor | float, of_output: Tensor) -> Tensor:
    output = output.to(z.dtype) * per_image(of_output, z)
    return output if isinstance(of_z, float) else output + z * per_image(of_z, z)
