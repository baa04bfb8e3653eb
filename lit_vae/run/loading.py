"""Build the model, or the data module, of a checkpoint."""

from argparse import ArgumentError
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_vae.models.module import Model
from lit_vae.run.errors import without_noise
from lit_vae.run.finite import not_finite
from lit_vae.run.lightning_internals import CLASS_PATH, INSTANTIATE_MODULE, INSTANTIATOR
from lit_vae.run.needs import sha256
from lit_vae.run.trust import check_classes, class_named, only_trusted

_MAX_LINES = 8  # of what jsonargparse says of an argument


def identity(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint; a prior fitted to one checkpoint is refused with another."""
    return sha256([checkpoint])


def load_model(checkpoint: Path, device: torch.device) -> Model:
    """The model of a checkpoint, in eval mode. `callbacks.EMA` leaves its average as the checkpoint's weights.

    No code of the checkpoint is executed, and only trusted classes are imported (`lit_vae.run.trust`).

    Raises:
        ValueError: the file is not a checkpoint, does not name its model, names a class that is not trusted, or belongs
            to another version of the code.
    """
    found = class_in(checkpoint, "hyper_parameters", Model, "model")
    model: Model = build(checkpoint, found, {}, map_location=device).eval()
    if wrong := not_finite(model.state_dict().items()):
        raise ValueError(
            f"{checkpoint}: {len(wrong)} weights are not finite, first {wrong[0]}: the run has diverged, or the file is"
            " damaged. Give another checkpoint, such as best.ckpt of the run."
        )
    return model


def load_stage1(path: str, sha256: str, device: torch.device) -> Model:
    """The model whose codes or latents a prior was trained on.

    Raises:
        ValueError: the checkpoint is missing, or is another one.
    """
    checkpoint = Path(path)
    if not checkpoint.is_file():
        raise ValueError(
            f"stage 1 of the prior is missing: {path}. Restore the checkpoint, or give lit-vae sample --stage1 FILE."
        )
    if identity(checkpoint) != sha256:
        raise ValueError(
            f"{path} is not the checkpoint that the prior was trained on (SHA-256 {sha256[:12]}...). Restore the"
            " old checkpoint, or encode again and train a new prior."
        )
    return load_model(checkpoint, device)


def images_of(checkpoint: str, base: type) -> Any:
    """The data module that a checkpoint was trained on, a subclass of ``base``. No data are read yet.

    Raises:
        ValueError: the checkpoint does not name it, or it cannot be built.
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
            f"{checkpoint} does not name its {what}: lightning fit has not written it. Draw it from Python, for example"
            " with callbacks.Samples(...).draw(model)."
        )
    found = class_named(given[CLASS_PATH], checkpoint, f"its {what}")
    if not issubclass(found, base):
        raise ValueError(
            f"{checkpoint}: its {what} {given[CLASS_PATH]} is not a {base.__name__}. Give another checkpoint."
        )
    check_classes(given, checkpoint, key)
    if given.get(INSTANTIATOR, INSTANTIATE_MODULE) != INSTANTIATE_MODULE:
        raise ValueError(f"{checkpoint}: {key}.{INSTANTIATOR} must be {INSTANTIATE_MODULE}. Give another checkpoint.")
    return found


def build(checkpoint: Path, of: Any, arguments: dict[str, Any], **kwargs: Any) -> Any:
    """Build the object of a class from a checkpoint, with some of its arguments replaced.

    Raises:
        ValueError: the checkpoint belongs to another version of the code, or names a class that is not trusted.
    """
    try:
        # called on a base class, Lightning would drop arguments that the base class does not have
        with only_trusted(checkpoint):
            return of.load_from_checkpoint(checkpoint, weights_only=True, **kwargs, **arguments)
    except ValueError as error:
        raise error if str(checkpoint) in str(error) else ValueError(f"{checkpoint}: {error}") from error
    except (ArgumentError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        said = "\n".join(without_noise(str(error)).splitlines()[:_MAX_LINES])
        raise ValueError(
            f"{checkpoint}: does not fit this version of {of.__name__}: {said}. Use the version that"
            " trained it: the first line of its config.yaml names it."
        ) from error
