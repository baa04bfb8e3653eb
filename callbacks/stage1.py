"""What stands behind a data set of codes or latents: the model that decodes them, and its images."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule

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
