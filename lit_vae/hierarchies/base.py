"""Base class of the wirings of a hierarchy: who depends on whom in p(x, z) and q(z | x)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Shape
from lit_vae.objectives import Level

Pick = Callable[[int, DiagonalGaussian], Tensor]
"""Chooses the latent of a level, from the top: ``(level, distribution) -> z``, both ``(L, B, *latent)``."""


def at(u: Sequence[Tensor]) -> Pick:
    """Choose the latents whose distances from the means of their priors are ``u``, in standard deviations."""
    return lambda level, prior: prior.mean + prior.std * u[level]


class Hierarchy(nn.Module, ABC):
    """Networks of ``p(x | z)``, of each ``p(z_l | ...)`` and of each ``q(z_l | ..., x)``.

    ``L`` is the number of draws for each of ``B`` images. Levels are numbered from the top.

    Args:
        in_shape: of the images.
        latent_shapes: of the latents, from the top.
        out_shape: of the likelihood's parameters.
        cond_dim: dimension of the condition of all networks; 0 for none.
    """

    latent_shapes: Sequence[Shape]

    @abstractmethod
    def encode(self, x: Tensor, cond: Tensor | None) -> list[Tensor]:
        """What `infer` reads of images ``x (B, C, H, W)``, ``(B, ...)`` each. It does not depend on latents."""

    @abstractmethod
    def infer(
        self, encoded: list[Tensor], cond: Tensor | None, num_samples: int, pick: Pick
    ) -> tuple[list[Level], Tensor]:
        """Latents picked from the posteriors, and the parameters of ``p(x | z)`` at these.

        Args:
            encoded: the result of `encode`.
            cond: ``(B, cond_dim)``.
            num_samples: number L of draws per image.
            pick: chooses each latent, given its posterior.

        Returns:
            The levels from the top, and parameters ``(L, B, *out_shape)``.
        """

    @abstractmethod
    def generate(self, cond: Tensor | None, u: Sequence[Tensor]) -> Tensor:
        """Parameters of ``p(x | z)`` at latents in units of their priors: ``-> (L, B, *out_shape)``.

        Args:
            cond: ``(B, cond_dim)``.
            u: ``(z_l - mean_p) / std_p`` of each level from the top, ``(L, B, *latent)``.
        """


HierarchyFactory = Callable[[Shape, Sequence[Shape], Shape, int], Hierarchy]
"""``(in_shape, latent_shapes, out_shape, cond_dim) -> hierarchy``."""


def for_each_draw(cond: Tensor | None, num_samples: int) -> Tensor | None:
    """A condition ``(B, cond_dim)`` repeated for L draws, ``(L B, cond_dim)``."""
    return None if cond is None else cond.expand(num_samples, -1, -1).flatten(0, 1)
