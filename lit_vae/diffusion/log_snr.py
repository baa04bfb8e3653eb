"""The clock of all diffusion models: ``lam = ln(alpha^2 / sigma^2)``, the log signal-to-noise ratio.

A state is ``z = alpha x + sigma eps`` with ``alpha^2 + sigma^2 = 1``: it keeps the variance. The paths of other papers
are this state in other units (Kingma et al., "Variational Diffusion Models", 2021, sec. 5.1): the linear path of flow
matching, ``(1 - t) x + t eps``, and ``x + s eps`` of Karras et al., "Elucidating the Design Space of Diffusion-Based
Generative Models", 2022.
"""

from torch import Tensor


def alpha(lam: Tensor) -> Tensor:
    """The factor of the image in a state, ``alpha^2 = sigmoid(lam)``."""
    return lam.sigmoid().sqrt()


def sigma(lam: Tensor) -> Tensor:
    """The factor of the noise in a state, ``sigma^2 = sigmoid(-lam)``."""
    return lam.neg().sigmoid().sqrt()


def per_image(lam: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` or ``()`` in a shape that multiplies ``like (B, ...)``."""
    return lam if lam.ndim == 0 else lam.reshape(-1, *[1] * (like.ndim - 1))
