"""Options of verbs that draw from a diffusion model: how it goes from noise to an image."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from lit_vae.diffusion import ClassifierFree, Sampling
    from lit_vae.models.denoising import DenoisingModel
    from lit_vae.models.module import Model

SamplerName = Literal["ddim", "ancestral", "heun", "dpmpp_2m"]
"""The keys of `lit_vae.diffusion.SAMPLERS`, for a command line that does not load torch."""

Interval = tuple[float, float]


def change_sampling(
    verb: str,
    model: "Model",
    steps: int | None,
    sampler: SamplerName | None,
    guidance: float | None,
    guidance_interval: Interval | None,
) -> None:
    """Give a loaded diffusion model another ``sampling``. What is None stays as it was trained.

    Raises:
        ValueError: see `other_samplings`.
    """
    for sampling in other_samplings(verb, model, steps, sampler, [guidance], guidance_interval):
        model.sampling = sampling  # type: ignore[assignment]


def other_samplings(
    verb: str,
    model: "Model",
    steps: int | None,
    sampler: SamplerName | None,
    scales: Sequence[float | None],
    guidance_interval: Interval | None,
) -> "list[Sampling]":
    """A ``sampling`` for each scale of guidance, of a diffusion model. What is None stays as it was trained.

    Returns:
        Empty if all is None.

    Raises:
        ValueError: the model is no diffusion model, or cannot be guided, or a value is out of range.
    """
    if steps is sampler is guidance_interval is None and all(scale is None for scale in scales):
        return []
    from lit_vae.diffusion import SAMPLERS, Sampling
    from lit_vae.models.denoising import DenoisingModel

    name = type(model).__name__
    if not isinstance(model, DenoisingModel):
        raise ValueError(
            f"lit-vae {verb}: --steps, --sampler, --guidance and --guidance_interval are for a diffusion model, and a"
            f" {name} is none. Leave them out."
        )
    own = model.sampling
    try:
        return [
            Sampling(
                own.steps if steps is None else steps,
                own.sampler if sampler is None else SAMPLERS[sampler],
                own.grid,
                _guidance(model, scale, guidance_interval),
            )
            for scale in scales
        ]
    except ValueError as error:
        raise ValueError(f"lit-vae {verb}: {error}") from error


def _guidance(model: "DenoisingModel", scale: float | None, interval: Interval | None) -> "ClassifierFree | None":
    from lit_vae.diffusion import ClassifierFree

    own, name = model.sampling.guidance, type(model).__name__
    if scale is interval is None:
        return own
    if not model.num_classes:
        raise ValueError(f"--guidance leads to a class, and this {name} is not told labels. Leave it out.")
    if not model.label_dropout:
        raise ValueError(
            f"--guidance needs a network that also knows images without a class, and this {name} was trained with"
            " label_dropout: 0. Leave it out."
        )
    if scale is None and own is None:
        raise ValueError("--guidance_interval is where --guidance acts. Give both.")
    own = own or ClassifierFree()
    return ClassifierFree(own.scale if scale is None else scale, own.interval if interval is None else interval)


def show_steps(model: "DenoisingModel", num_draws: int, progress: Callable[[int, int], None]) -> None:
    """Report the nodes of the next ``num_draws`` calls of the model's ``sampling``, as one count."""
    done = count(1)

    def watch(node: int, lams: "Tensor", x_hat: "Tensor") -> None:
        progress(next(done), num_draws * len(lams))

    model.sampling.watch = watch
