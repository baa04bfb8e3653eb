"""Base class of priors."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lit_vae.distributions import LatentDistribution
from lit_vae.images import Shape
from lit_vae.ranges import PositiveInt, checked


class Prior(nn.Module, ABC):
    """A distribution over latents of ``shape``: ``[d]`` for a vector, ``[c, h, w]`` for a map."""

    is_gaussian: bool = False
    """Whether it is a `DiagonalGaussian`."""

    num_classes: int = 0
    """Number of labels that it depends on; 0: none."""

    @checked
    def __init__(self, shape: list[PositiveInt]) -> None:
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(
                f"{type(self).__name__}: shape (={shape}) must be [d] for a vector or [c, h, w] for a"
                " map. Set model.init_args.prior.init_args.shape."
            )
        self.shape: Shape = tuple(shape)

    @abstractmethod
    def forward(self, y: Tensor) -> LatentDistribution:
        """``p(z | y)`` for labels ``y (B,)``, as ``(B, *shape)``."""
