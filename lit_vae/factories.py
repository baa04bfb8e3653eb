"""What a command line gives a model to build something with later."""

from collections.abc import Callable
from typing import Any


class Factory:
    """A callable that a deep copy shares with its original.

    A factory that the command line has made refers to the command line, and through it to trainer and data. Whoever
    copies a model (an average of weights does) would copy all of these, or fail of what cannot be copied.

    Args:
        make: the callable.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        """What it makes."""
        return self.make(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Factory":
        return self
