"""What stands behind a data set of codes or latents: the model that decodes them, and its images."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer

from lit_vae.encoded import EncodedSpec
from lit_vae.models.module import Model
from lit_vae.run.loading import images_of, load_stage1


def decoder_of(spec: Any) -> Model | None:
    """Stage 1 of codes or latents, on the CPU; None for images."""
    if not isinstance(spec, EncodedSpec):
        return None
    with torch.random.fork_rng(devices=[]):  # building a model draws random numbers
        return load_stage1(spec.checkpoint, spec.checkpoint_sha256, torch.device("cpu"))


def images_behind(data: Any) -> Any:
    """The data module of the images of stage 1; for images the data module itself."""
    spec = getattr(data, "spec", None)
    return images_of(spec.checkpoint, LightningDataModule) if isinstance(spec, EncodedSpec) else data


def decoder_and_images(callback: Callback, trainer: Trainer) -> tuple[Model | None, Any]:
    """`decoder_of` and `images_behind` the data of a trainer.

    Raises:
        ValueError: the data are not of a module of this project.
    """
    data = getattr(trainer, "datamodule", None)
    images = images_behind(data)
    if not hasattr(images, "fingerprint"):
        raise ValueError(
            f"{type(callback).__name__}: it needs images of a lit_vae.data module; trainer.datamodule is"
            f" {type(images).__name__}. Train on one, or remove it from trainer.callbacks."
        )
    return decoder_of(getattr(data, "spec", None)), images
