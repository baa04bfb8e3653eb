"""Problems with arguments of data modules, as error messages."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A problem with one argument."""

    argument: str
    value: object
    expected: str

    def text(self, component: str) -> str:
        """Return the error message."""
        return (
            f"{component}: {self.argument} (={self.value!r}) must be {self.expected}. "
            f"Change data.init_args.{self.argument}."
        )


def check_held_out(component: str, num_images: int, what: str, **sizes: int) -> None:
    """Check that the held-out splits leave training images.

    Raises:
        ValueError: they leave none.
    """
    if sum(sizes.values()) >= num_images:
        given = " + ".join(f"{name} (={size})" for name, size in sizes.items())
        raise ValueError(
            f"{component}: {given} must be less than the number of {what} (={num_images}). "
            f"Lower data.init_args.{next(iter(sizes))}."
        )


def pixel_problems(dequantize: bool, binarization: str | None) -> list[Problem]:
    """Return the problems with these arguments together."""
    if not dequantize or binarization is None:
        return []
    return [Problem("dequantize", dequantize, f"false if binarization (={binarization!r}) is set")]
