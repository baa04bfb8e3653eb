"""``lit-vae encode``: the codes or latents of all images, for a prior to be trained on."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.tools.priors.codes_on_disk import write_codes
from lit_vae.tools.priors.latents_on_disk import write_latents
from lit_vae.tools.runs import (
    SPLITS,
    Checkpoint,
    Run,
    check_arguments,
    choose_device,
    find_run,
    load_autoencoder,
    load_data,
)

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.base import Autoencoder


SHARD_SIZE = 8192
"""Images in a file: 512 MiB for latents of 8 x 32 x 32 values. A killed process loses its work on one file."""


def encode(
    run: str,
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
    mirrors: bool | None = None,
    shard_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Write the codes or the latents of all images, for a prior to be trained on.

    The folder is read by lit_vae.data.Codes or lit_vae.data.Latents. It also holds the labels and the SHA-256 of the
    checkpoint, the only one that decodes them; of codes their usage and the mean distortion of each split, of latents
    the mean and std of each channel. A model with a Gaussian posterior has latents: its mean and its log-variance are
    written, and training draws from them. So has an AE, whose log-variance is written as -30. If encoding latents is
    interrupted, the same command goes on.

    Args:
        run: Run directory or .ckpt file of an autoencoder with codes, of one with a Gaussian posterior, or of an AE.
        out: Folder to write; it must not exist. Default: RUN/codes or RUN/latents.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        mirrors: Also write the latents of mirrored training images. Default: if they were mirrored in training.
        shard_size: Images in a file of latents. Default: 8192.
        rank: Number of this process of several that share the work (latents only).
        world_size: Number of these processes. The last to end completes the folder.
    """
    from lit_vae.models import AE
    from lit_vae.models.abilities import HasPosterior
    from lit_vae.models.discrete import DiscreteAutoencoder

    check_arguments("encode", {"shard_size": (shard_size, 1), "rank": (rank, 0), "world_size": (world_size, rank + 1)})
    found = find_run(run, checkpoint)
    model = load_autoencoder("encode", found, choose_device(device))
    has_codes = isinstance(model, DiscreteAutoencoder)
    has_latents = isinstance(model, AE) or (isinstance(model, HasPosterior) and model.gaussian_posterior)
    if not has_codes and not has_latents:
        raise ValueError(
            f"lit-vae encode: {type(model).__name__} has no codes and no Gaussian posterior of one latent. Give a run"
            " of a VQ-VAE, a VAE, a KLAutoencoder or an AE."
        )
    if has_codes and (mirrors, shard_size, world_size) != (None, None, 1):
        raise ValueError(
            f"lit-vae encode: --mirrors, --shard_size, --rank and --world_size are for latents, and"
            f" {type(model).__name__} has codes. Leave them out."
        )
    data = load_data(found, model, data_root, SPLITS)
    root = found.directory / ("codes" if has_codes else "latents") if out is None else Path(out)
    common = _common(found, model, data)
    if isinstance(model, DiscreteAutoencoder):
        write_codes(root, model, data, common)
    else:
        mirrors = data.random_flip if mirrors is None else mirrors
        write_latents(root, model, data, common, mirrors, shard_size or SHARD_SIZE, rank, world_size)


def _common(run: Run, model: "Autoencoder", data: "ImageDataModule") -> dict[str, Any]:
    """The arguments of `EncodedSpec`."""
    import torch

    offset = model.likelihood.bits_per_dim(torch.zeros((), dtype=torch.float64), data.spec)
    return {
        "checkpoint": str(run.checkpoint.resolve()),
        "checkpoint_sha256": run.identity,
        "model": f"{type(model).__module__}.{type(model).__name__}",
        "image_shape": data.spec.shape,
        "num_classes": data.spec.num_classes,
        "class_names": data.spec.class_names,
        "bits_per_dim": None if offset is None else (math.prod(data.spec.shape), float(offset)),
    }
