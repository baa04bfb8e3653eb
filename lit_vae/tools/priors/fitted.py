"""Save, load and draw from a prior that was fitted to the latents of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lit_vae.run.files import replacing, why_unreadable, write_json
from lit_vae.tools.records import NOUNS, PriorKind, prior_file
from lit_vae.tools.runs import Run

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lit_vae.models.base import Autoencoder


class Fitted(Protocol):
    """A density of latents, flattened to d dimensions, and of labels that count only if it has several groups."""

    is_bound: ClassVar[bool]
    """Whether `log_prob` only estimates a lower bound of the log-density."""

    @property
    def size(self) -> tuple[int, int]:
        """Groups of labels with a density of their own, and d."""

    def sample(self, y: "Tensor", temperature: float, seed: int) -> "Tensor":
        """Labels ``y (n,) -> (n, d)`` float64; the noise is a function of the seed and the row."""

    def log_prob(self, z: "Tensor", y: "Tensor") -> "Tensor":
        """``log p(z | y)`` of latents ``(n, d)``: ``-> (n,)`` nats; a lower bound if `is_bound`."""

    def state(self) -> dict[str, Any]:
        """What a file holds of it: tensors and numbers."""


class Sampled:
    """A model that draws latents from a fitted prior, or images of one label, when a panel samples from it.

    Args:
        model: everything else is that of this model.
        label: class of every image; None: the panel chooses.
        fitted: the prior to draw latents from; None: the model's own.
    """

    def __init__(self, model: "Autoencoder", label: int | None, fitted: Fitted | None) -> None:
        self._model, self._label, self._fitted = model, label, fitted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def labels_for(self, n: int, y: "Tensor | None") -> "Tensor":
        """See `Autoencoder.labels_for`."""
        labels = self._model.labels_for(n, y)
        return labels if self._label is None or y is not None else labels.fill_(self._label)

    def sample_latents(self, n: int, y: "Tensor", temperature: Any, generator: "Generator") -> "Tensor":
        """See `Autoencoder.sample_latents`; a fitted prior draws from the generator's seed on the CPU."""
        if self._fitted is None:
            return self._model.sample_latents(n, y, temperature, generator)
        z = self._fitted.sample(y.cpu(), temperature, generator.initial_seed())
        weight = next(self._model.parameters())
        return z.unflatten(1, self._model.latent_shape).to(weight)


def fitted_draw(model: "Autoencoder", fitted: Fitted) -> "Callable[[Tensor, int], Tensor]":
    """A function ``(labels (n,), seed) -> images``: decoder means at draws from the fitted prior."""
    from callbacks.panel import decode_means

    like = next(model.parameters())
    return lambda y, seed: decode_means(
        model, fitted.sample(y.cpu(), 1.0, seed).unflatten(1, model.latent_shape).to(like), y
    )


def save_prior(run: Run, kind: PriorKind, fitted: Fitted, record: dict[str, Any]) -> None:
    """Write ``RUN/priors/<kind>.pt`` and its record, each whole or not at all."""
    import torch

    identity = {"checkpoint": record["checkpoint"], "checkpoint_sha256": record["checkpoint_sha256"]}
    with replacing(run.directory / prior_file(kind, ".pt")) as partial:
        torch.save({**fitted.state(), **identity}, partial)
    write_json(run.directory / prior_file(kind), record)


def load_prior(run: Run, model: "Autoencoder", kind: PriorKind = "gmm") -> Fitted:
    """The prior that was fitted to this checkpoint, whose model is ``model``.

    Raises:
        ValueError: the file is missing or damaged, or the prior was fitted to another checkpoint.
    """
    import torch

    from lit_vae.tools.priors.flow import FittedFlow
    from lit_vae.tools.priors.mixture import mixture_of
    from lit_vae.tools.priors.second_stage import SecondStage

    path, name = run.directory / prior_file(kind, ".pt"), f"--prior {kind}"
    last = " --checkpoint last" if run.checkpoint.name == "last.ckpt" and Path(run.given).is_dir() else ""
    remedy = f"lit-vae fit-prior {run.given}{'' if kind == 'gmm' else ' ' + name}{last}"
    if not path.is_file():
        raise ValueError(f"{name}: there is no {path}. Fit it first: {remedy}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises many kinds of error
        raise ValueError(f"{name}: {path} cannot be read ({why_unreadable(error)}). Fit it again: {remedy}") from error
    if not isinstance(saved, dict) or "checkpoint_sha256" not in saved:
        raise ValueError(f"{name}: {path} holds no {NOUNS[kind]}. Fit it again: {remedy}")
    if saved["checkpoint_sha256"] != run.identity:
        raise ValueError(
            f"{name}: {path} was fitted to another checkpoint ({saved.get('checkpoint')}, as it was then) than"
            f" {run.checkpoint}. Fit it again: {remedy}"
        )
    of_kind: dict[PriorKind, Callable[[dict[str, Any]], Fitted]] = {
        "gmm": mixture_of,
        "flow": FittedFlow.of,
        "vamp": mixture_of,
        "vae": SecondStage.of,
    }
    try:
        fitted = of_kind[kind](saved)
        expected = (max(model.num_classes, 1), math.prod(model.latent_shape))
        if fitted.size != expected:
            groups, d = fitted.size
            raise ValueError(
                f"it is of {groups} classes in {d} dimensions, the model of {expected[0]} in {expected[1]}"
            )
    except ValueError as error:
        raise ValueError(
            f"{name}: {path} holds no {NOUNS[kind]} of this model: {error}. Fit it again: {remedy}"
        ) from error
    return fitted
