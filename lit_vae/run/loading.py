"""From a checkpoint to what wrote it: a model, a data module."""

import hashlib
from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_vae.models.module import Model
from lit_vae.run.errors import without_noise
from lit_vae.run.lightning_internals import CLASS_PATH, INSTANTIATE_MODULE, INSTANTIATOR
from lit_vae.run.trust import check_classes, class_named, only_trusted

_MOST_LINES = 8  # of what jsonargparse says of an argument


def identity(checkpoint: Path) -> str:
    """SHA-256 of the file: what is fitted to one checkpoint is used with no other."""
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(checkpoint: Path, device: torch.device) -> Model:
    """The model of a checkpoint, in eval mode. `callbacks.EMA` leaves its average as the checkpoint's weights.

    A checkpoint is read without executing anything of it. Of the classes that it names, only trusted ones are imported
    (`lit_vae.run.trust`).

    Raises:
        ValueError: the file is no checkpoint, does not say what its model is, names a class that is not trusted, or is
            of other code than this.
    """
    found = class_in(checkpoint, "hyper_parameters", Model, "model")
    model: Model = build(checkpoint, found, {}, map_location=device).eval()
    wrong = [name for name, value in model.state_dict().items() if value.is_floating_point() and not finite(value)]
    if wrong:
        raise ValueError(
            f"{checkpoint}: {len(wrong)} of its weights have numbers that are not finite, first {wrong[0]}: the run has"
            " diverged, or the file is damaged. Give another checkpoint, such as best.ckpt of the run."
        )
    return model


def finite(value: torch.Tensor) -> bool:
    """Whether all its numbers are."""
    return bool(value.isfinite().all())


def load_stage1(path: str, sha256: str, device: torch.device) -> Model:
    """The model whose codes a prior was trained on, and no other.

    Raises:
        ValueError: it is not there, or is not what it was.
    """
    checkpoint = Path(path)
    if not checkpoint.is_file():
        raise ValueError(
            f"stage 1 of the prior is not at {path}. Put the checkpoint back; lit-vae sample also takes --stage1 FILE."
        )
    if identity(checkpoint) != sha256:
        raise ValueError(
            f"{path} is not the checkpoint whose codes the prior was trained on (SHA-256 {sha256[:12]}...): it was"
            " trained further, or is another. Put the old one back, or encode again and train a new prior."
        )
    return load_model(checkpoint, device)


def images_of(checkpoint: str, base: type) -> Any:
    """The data module that a checkpoint was trained on, a subclass of ``base``; nothing is read yet.

    Raises:
        ValueError: the checkpoint does not say, or the data module cannot be built.
    """
    path = Path(checkpoint)
    return build(path, class_in(path, "datamodule_hyper_parameters", base, "data"), {})


def class_in(checkpoint: Path, key: str, base: type, what: str) -> Any:
    """The subclass of ``base`` that a checkpoint names."""
    from lit_vae.run.checkpoints import AtomicCheckpointIO

    content = AtomicCheckpointIO().load_checkpoint(checkpoint)
    given = content.get(key)
    if not isinstance(given, Mapping) or given.get(CLASS_PATH) is None:
        raise ValueError(
            f"{checkpoint} does not say what its {what} is: it was not written by a run of the command line"
            " (lightning fit). Draw it from Python, with callbacks.Samples(...).draw(model) and the like."
        )
    found = class_named(given[CLASS_PATH], checkpoint, f"its {what}")
    if not issubclass(found, base):
        raise ValueError(
            f"{checkpoint}: its {what} {given[CLASS_PATH]} is no {base.__name__}. Give another checkpoint."
        )
    check_classes(given, checkpoint, key)
    if given.get(INSTANTIATOR, INSTANTIATE_MODULE) != INSTANTIATE_MODULE:
        raise ValueError(f"{checkpoint}: {key}.{INSTANTIATOR} must be {INSTANTIATE_MODULE}. Give another checkpoint.")
    return found


def build(checkpoint: Path, of: Any, arguments: dict[str, Any], **kwargs: Any) -> Any:
    """What a checkpoint holds of that class, with some of its arguments replaced.

    Raises:
        ValueError: the checkpoint is of other code than this, or names a class that is not trusted.
    """
    try:
        # of the class itself: asked of a base class, Lightning drops the arguments that the base class does not take
        with only_trusted(checkpoint):
            return of.load_from_checkpoint(checkpoint, weights_only=True, **kwargs, **arguments)
    except ValueError as error:
        raise error if str(checkpoint) in str(error) else ValueError(f"{checkpoint}: {error}") from error
    except (ArgumentError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        said = "\n".join(without_noise(str(error)).splitlines()[:_MOST_LINES])
        raise ValueError(
            f"{checkpoint}: not of this version of {of.__name__}: {said}. Use the version that"
            " trained it: the first line of its config.yaml names it."
        ) from error
