"""The differences between two sets of weights, by name and shape, in words."""

from collections.abc import Mapping

from torch import Tensor

from lit_vae.images import Shape


def differences(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> str:
    """Weights that are missing, unexpected or of another shape, in one line; empty if there are none."""
    kinds = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name]} for {shape}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ],
    }
    return "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in kinds.items() if names)


def some(names: list[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shapes by name."""
    return {name: tuple(value.shape) for name, value in state.items()}
