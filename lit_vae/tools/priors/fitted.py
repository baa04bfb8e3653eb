"""Save, load and draw from the mixture that was fitted to the latents of a run."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import replacing, why_unreadable, write_json
from lit_vae.tools.records import PRIOR_RECORD_FILE
from lit_vae.tools.runs import Run

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from lit_vae.models.base import Autoencoder
    from lit_vae.tools.priors.mixture import Mixture

PRIOR_FILE = Path("priors") / "gmm.pt"


class Sampled:
    """A model that draws latents from a mixture, or images of one label, when a panel samples from it.

    Args:
        model: everything else is that of this model.
        label: class of every image; None: the panel chooses.
        mixture: the prior to draw latents from; None: the model's own.
    """

    def __init__(self, model: "Autoencoder", label: int | None, mixture: "Mixture | None") -> None:
        self._model, self._label, self._mixture = model, label, mixture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def labels_for(self, n: int, y: "Tensor | None") -> "Tensor":
        """See `Autoencoder.labels_for`."""
        labels = self._model.labels_for(n, y)
        return labels if self._label is None or y is not None else labels.fill_(self._label)

    def sample_latents(self, n: int, y: "Tensor", temperature: float, generator: "Generator") -> "Tensor":
        """See `Autoencoder.sample_latents`; a mixture draws from the generator's seed, the same on every device."""
        if self._mixture is None:
            return self._model.sample_latents(n, y, temperature, generator)
        z = self._mixture.sample(y.cpu(), temperature, generator.initial_seed())
        weight = next(self._model.parameters())
        return z.unflatten(1, self._model.latent_shape).to(weight)


def mixture_draw(model: "Autoencoder", mixture: "Mixture") -> "Callable[[Tensor, int], Tensor]":
    """A function ``(labels (n,), seed) -> images``: decoder means at draws from the mixture."""
    from callbacks.panel import decode_means

    like = next(model.parameters())
    return lambda y, seed: decode_means(
        model, mixture.sample(y.cpu(), 1.0, seed).unflatten(1, model.latent_shape).to(like), y
    )


def save_prior(run: Run, mixture: "Mixture", record: dict[str, Any]) -> None:
    """Write ``RUN/priors/gmm.pt`` and its record ``gmm.json``, each whole or not at all."""
    import torch

    identity = {"checkpoint": record["checkpoint"], "checkpoint_sha256": record["checkpoint_sha256"]}
    with replacing(run.directory / PRIOR_FILE) as partial:
        torch.save({**asdict(mixture), **identity}, partial)
    write_json(run.directory / PRIOR_RECORD_FILE, record)


def load_prior(run: Run, model: "Autoencoder") -> "Mixture":
    """The mixture that was fitted to this checkpoint, whose model is ``model``.

    Raises:
        ValueError: the file is missing or damaged, or the mixture was fitted to another checkpoint.
    """
    import torch

    from lit_vae.tools.priors.mixture import Mixture

    path = run.directory / PRIOR_FILE
    last = " --checkpoint last" if run.checkpoint.name == "last.ckpt" and Path(run.given).is_dir() else ""
    remedy = f"lit-vae fit-prior {run.given}{last}"
    if not path.is_file():
        raise ValueError(f"--prior gmm: there is no {path}. Fit it first: {remedy}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises many kinds of error
        raise ValueError(
            f"--prior gmm: {path} cannot be read ({why_unreadable(error)}). Fit it again: {remedy}"
        ) from error
    if not isinstance(saved, dict) or not {"weights", "means", "cholesky"} <= saved.keys():
        raise ValueError(f"--prior gmm: {path} holds no mixture. Fit it again: {remedy}")
    if saved.get("checkpoint_sha256") != run.identity:
        raise ValueError(
            f"--prior gmm: {path} was fitted to another checkpoint ({saved.get('checkpoint')}, as it was then) than"
            f" {run.checkpoint}. Fit it again: {remedy}"
        )
    mixture = Mixture(saved["weights"], saved["means"], saved["cholesky"])
    problem = mixture.problem()
    expected = (max(model.num_classes, 1), math.prod(model.latent_shape))
    if problem is None and (found := (len(mixture.weights), mixture.means.shape[2])) != expected:
        problem = f"it is of {found[0]} classes in {found[1]} dimensions, the model of {expected[0]} in {expected[1]}"
    if problem is not None:
        raise ValueError(f"--prior gmm: {path} holds no mixture of this model: {problem}. Fit it again: {remedy}")
    return mixture
