"""Factories: callables with which a model builds components later."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lit_vae.images import Shape

NetworkFactory = Callable[[Shape, Shape, int], nn.Module]
"""``(in_shape, out_shape, cond_dim) -> network``: a class of `lit_vae.networks` with its other arguments filled in."""


class Factory:
    """A callable that a deep copy shares with its original.

    A factory made by the command line refers to the command line, trainer and data. A deep copy of a model (for
    averaged weights) would copy all of these, or fail.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        """Call ``make``."""
        return self.make(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Factory":
        return self
