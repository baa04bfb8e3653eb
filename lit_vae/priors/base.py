"""Base class of priors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lit_vae.distributions import LatentDistribution, Reparametrised
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

    def connect(self, encode: Callable[[Tensor, Tensor], Reparametrised], image_shape: Shape, num_classes: int) -> None:
        """Called once by the model that it belongs to, with the model's ``(x, y) -> q(z | x)``."""

    def start(self, data: Any) -> None:
        """Called at the start of a training, with the data module; after the weights of a checkpoint are loaded."""

    def problems(self, gaussian_posterior: bool) -> list[str]:
        """Reasons why it cannot be the prior of a model with such a posterior; empty if it can."""
        return []

    def caveats(self) -> list[str]:
        """What a user should know about it after a training; empty if nothing."""
        return []

    @abstractmethod
    def forward(self, y: Tensor) -> LatentDistribution:
        """``p(z | y)`` for labels ``y (B,)``, as ``(B, *shape)``."""
