"""What may be wrong with arguments, in the words of the project's errors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an argument, in the words of the project's errors."""

    argument: str
    value: object
    expected: str

    def text(self, component: str) -> str:
        """Return the sentence that names component, argument, expectation and value."""
        return (
            f"{component}: {self.argument} (={self.value!r}) must be {self.expected}. "
            f"Change data.init_args.{self.argument}."
        )


def check_held_out(component: str, num_images: int, what: str, **sizes: int) -> None:
    """Check that the splits held out of training leave something to train on.

    Raises:
        ValueError: they do not.
    """
    if sum(sizes.values()) >= num_images:
        given = " + ".join(f"{name} (={size})" for name, size in sizes.items())
        raise ValueError(
            f"{component}: {given} must be less than the number of {what} (={num_images}). "
            f"Lower data.init_args.{next(iter(sizes))}."
        )


def pixel_problems(dequantize: bool, binarization: str | None, allowed: tuple[str, ...]) -> list[Problem]:
    """Return what is wrong with these arguments."""
    problems = []
    if binarization is not None and binarization not in allowed:
        problems.append(Problem("binarization", binarization, f"null or one of {', '.join(allowed)}"))
    if dequantize and binarization is not None:
        problems.append(Problem("dequantize", dequantize, f"false where binarization (={binarization!r}) is set"))
    return problems
