"""Writes a trained model as a folder that diffusers loads."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_vae.interop.architecture import Architecture, architecture_of, is_shared
from lit_vae.interop.names import to_diffusers
from lit_vae.interop.reading import CLASSES, CONFIG_FILE, WEIGHTS_FILE
from lit_vae.models.abilities import HasCodes
from lit_vae.models.base import Autoencoder
from lit_vae.quantizers import VectorQuantizer
from lit_vae.run.weights import differences, shapes_of

CARD_FILE = "README.md"


def export_diffusers(
    model: Autoencoder, folder: str | Path, scaling_factor: float, shift_factor: float | None, card: str
) -> None:
    """Write a folder for ``diffusers.AutoencoderKL.from_pretrained``, or for ``VQModel``; whole or not at all.

    In diffusers it gives the same latents and reconstructions (`decode(...).mean`, not clamped).

    Args:
        model: a model of LDM networks whose likelihood's mean is the decoder's output; a VQ-VAE must have a
            `VectorQuantizer` with ``normalize: false``.
        folder: the new folder, which must not exist.
        scaling_factor: factor of latent diffusion on the latents, 1 / their standard deviation.
        shift_factor: value that is subtracted before; None: none.
        card: text of ``README.md``.

    Raises:
        ValueError: diffusers has no such model, or the folder exists.
    """
    folder = Path(folder)
    try:
        architecture, state = _weights(model)
    except ValueError as error:
        raise ValueError(f"export of {type(model).__name__} to diffusers: {error}") from None
    if folder.exists():
        raise ValueError(f"{folder} exists already. Give another folder, or remove it.")
    from safetensors.torch import save_file

    config = _config(architecture, model.image_shape, scaling_factor, shift_factor)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        partial = Path(temporary) / folder.name
        partial.mkdir()
        save_file(state, partial / WEIGHTS_FILE, metadata={"format": "pt"})
        (partial / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        (partial / CARD_FILE).write_text(card)
        partial.rename(folder)


def _weights(model: Autoencoder) -> tuple[Architecture, dict[str, Tensor]]:
    """The architecture, and the weights under diffusers' names; raises ValueError for parts that diffusers lacks."""
    architecture = architecture_of(model)
    for quantizer in model.quantizers if isinstance(model, HasCodes) else ():
        if type(quantizer) is not VectorQuantizer or quantizer.normalize:
            raise ValueError(
                f"model.quantizer (={type(quantizer).__name__}) must be a VectorQuantizer with normalize: false and no"
                " projection around it: diffusers.VQModel has no other."
            )
    _check_likelihood(model)
    state = {name: value for name, value in model.state_dict().items() if is_shared(name)}
    if different := differences(shapes_of(state), architecture.shapes()):
        raise ValueError(
            "its decoder must be the mirror of its encoder, as LDMDecoder is with the same init_args, but has"
            f" {different}. Give both networks the same init_args."
        )
    return architecture, {to_diffusers(name): value.detach().cpu().contiguous() for name, value in state.items()}


def _check_likelihood(model: Autoencoder) -> None:
    channels = model.image_shape[0]
    likelihood, parameters = model.likelihood, model.likelihood.num_parameters(channels)
    remedy = (
        "Train with a likelihood whose mean is the decoder's output: lit_vae.likelihoods.Laplace, FixedGaussian or"
        " LearnedGaussian."
    )
    if parameters != channels:
        raise ValueError(
            f"model.likelihood (={type(likelihood).__name__}) takes {parameters} numbers for each pixel of {channels}"
            f" channels, but diffusers decodes to images only. {remedy}"
        )
    output = torch.linspace(-2.0, 2.0, channels)[None, :, None, None].to(next(model.parameters()))
    if not torch.equal(likelihood(output).mean, output):
        raise ValueError(
            f"the mean of model.likelihood (={type(likelihood).__name__}) is not the decoder's output. {remedy}"
        )


def _config(
    architecture: Architecture, image_shape: tuple[int, ...], scaling_factor: float, shift_factor: float | None
) -> dict[str, Any]:
    attends = [level in architecture.attention for level in range(len(architecture.channels))]
    _, height, width = image_shape
    codes = architecture.num_embeddings
    return {
        "_class_name": CLASSES[1] if codes else CLASSES[0],
        "act_fn": "silu",
        "block_out_channels": list(architecture.channels),
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attends],
        "in_channels": architecture.image_channels,
        "latent_channels": architecture.latent_channels,
        "layers_per_block": architecture.blocks,
        "norm_num_groups": architecture.norm_groups,
        "out_channels": architecture.image_channels,
        "sample_size": max(height, width),  # one number, above which diffusers tiles images
        "scaling_factor": scaling_factor,
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attends)],
        **({"num_vq_embeddings": codes, "vq_embed_dim": architecture.latent_channels} if codes else {}),
        **({} if codes else {"shift_factor": shift_factor}),
    }
