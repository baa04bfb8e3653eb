"""Reads autoencoders of diffusers and CompVis as networks and weights of this project. No code of a file is run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from lit_vae.interop.architecture import CODEBOOK, Architecture, architecture_of, deduced, is_shared
from lit_vae.interop.names import to_compvis, to_diffusers, to_todays_diffusers
from lit_vae.models.base import Autoencoder
from lit_vae.run.forms import Form, fitting
from lit_vae.run.weights import differences, shapes_of, some

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
CLASSES = ("AutoencoderKL", "VQModel")
_OLD_WEIGHTS_FILE = "diffusion_pytorch_model.bin"
_FIRST_STAGE = "first_stage_model."
_TRAINING = ("loss.", "model_ema.")  # discriminator and averaged weights of a CompVis run, which are ignored


class Imported(NamedTuple):
    """An autoencoder of another library.

    Attributes:
        path: its file or folder.
        architecture: its sizes.
        state_dict: its weights under the names of this project, float32.
        scaling_factor: factor of latent diffusion on the latents, if the file has it.
        shift_factor: value that is subtracted before, if the file has it.
    """

    path: Path
    architecture: Architecture
    state_dict: dict[str, Tensor]
    scaling_factor: float | None
    shift_factor: float | None


def read_autoencoder(path: str | Path) -> Imported:
    """Read the folder of a diffusers autoencoder, or a CompVis checkpoint (.ckpt, .pt, .safetensors).

    From a checkpoint of a whole latent diffusion model, only ``first_stage_model`` is read. Pickle files are read with
    ``weights_only=True``.

    Raises:
        ValueError: the file cannot be read, the autoencoder has parts that the networks here do not have, or weights
            are missing, unexpected or of another shape. It names all of them.
    """
    path = Path(path)
    return _read_diffusers(path) if path.is_dir() else _read_compvis(path)


def load_into(model: Autoencoder, source: str | Path | Imported) -> None:
    """Load the weights of another library's autoencoder into a model; its likelihood and objective stay.

    Args:
        model: a model of LDM networks of the same sizes.
        source: a path for `read_autoencoder`, or its result.

    Raises:
        ValueError: as `read_autoencoder`; also if the model has no LDM networks, or networks of other sizes.
    """
    imported = source if isinstance(source, Imported) else read_autoencoder(source)
    own = {name: value for name, value in model.state_dict().items() if is_shared(name)}
    what = f"{imported.path}: does not fit into {type(model).__name__}"
    try:
        architecture_of(model)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if different := differences(shapes_of(imported.state_dict), shapes_of(own)):
        architecture = imported.architecture
        raise ValueError(
            f"{what}: {different}. Set the init_args of both networks to"
            f" {architecture.init_args(model.image_shape[1])}, take a latent of {architecture.latent_channels} channels"
            " and a likelihood of one number for each value."
        )
    weights = dict(imported.state_dict)
    if CODEBOOK in weights:
        vectors = weights.pop(CODEBOOK).to(own[CODEBOOK])
        codebook = model.get_submodule(CODEBOOK.rpartition(".")[0])
        codebook.replace(torch.arange(len(vectors), device=vectors.device), vectors)  # type: ignore[operator]
    model.load_state_dict(weights, strict=False)


def _read_diffusers(folder: Path) -> Imported:
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(
            f"{folder}: there is no {CONFIG_FILE}. Give the folder of the autoencoder itself; in that of a pipeline it"
            " is called vae or vqvae."
        )
    config = _read_config(folder / CONFIG_FILE)
    architecture = _architecture(folder, config)
    files = [folder / name for name in (WEIGHTS_FILE, _OLD_WEIGHTS_FILE) if (folder / name).is_file()]
    if not files:
        raise ValueError(f"{folder}: there is no {WEIGHTS_FILE}. Download the weights beside {CONFIG_FILE}.")
    given = {to_todays_diffusers(name): value for name, value in _tensors(files[0]).items()}
    for name, unused in (("quant_conv", "use_quant_conv"), ("post_quant_conv", "use_post_quant_conv")):
        if config.get(unused, True) is False:  # use an identity, since the networks here always have this layer
            channels = architecture.latent_channels * (2 if name == "quant_conv" else 1)
            given |= {f"{name}.weight": torch.eye(channels)[..., None, None], f"{name}.bias": torch.zeros(channels)}
    state = _renamed(files[0], given, architecture, to_diffusers)
    return Imported(folder, architecture, state, config.get("scaling_factor"), config.get("shift_factor"))


class _Config(Form):
    """The part of ``config.json`` that is read; missing settings have diffusers' defaults."""

    class_name: str | None = Field(None, alias="_class_name")
    in_channels: PositiveInt = 3
    out_channels: PositiveInt = 3
    latent_channels: PositiveInt = 4
    down_block_types: list[str] = Field(default_factory=list)
    up_block_types: list[str] = Field(default_factory=list)
    block_out_channels: list[PositiveInt] = Field(default_factory=lambda: [64], min_length=1)
    layers_per_block: PositiveInt = 1
    norm_num_groups: PositiveInt = 32
    num_vq_embeddings: PositiveInt = 256
    scaling_factor: float | None = None
    shift_factor: float | None = None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}). Download it again.") from error
    return fitting(content, _Config, path)


def _architecture(folder: Path, config: Mapping[str, Any]) -> Architecture:
    """The architecture in a diffusers configuration; missing settings have diffusers' defaults."""
    name = config.get("_class_name")
    latent_channels = config.get("latent_channels", 4 if name == CLASSES[0] else 3)
    image_channels = config.get("in_channels", 3)
    blocks = list(config.get("down_block_types", ["DownEncoderBlock2D"]))
    mirrored = [block.replace("Down", "Up").replace("Encoder", "Decoder") for block in reversed(blocks)]
    problems = [
        f"{key} (={config.get(key, default)!r}) must be {expected}"
        for key, default, fits, expected in (
            ("_class_name", None, CLASSES, " or ".join(CLASSES)),
            ("act_fn", "silu", ("silu", "swish"), "silu"),
            ("norm_type", "group", ("group",), "group"),
            ("mid_block_add_attention", True, (True,), "true"),
            ("out_channels", 3, (image_channels,), f"in_channels (={image_channels})"),
            ("vq_embed_dim", None, (None, latent_channels), f"latent_channels (={latent_channels})"),
            ("up_block_types", ["UpDecoderBlock2D"], (mirrored,), f"down_block_types mirrored, {mirrored}"),
        )
        if config.get(key, default) not in fits
    ]
    problems += [
        f"down_block_types has {block}, but must be of DownEncoderBlock2D and AttnDownEncoderBlock2D"
        for block in sorted(set(blocks) - {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"})
    ]
    if problems:
        raise ValueError(
            f"{folder / CONFIG_FILE}: not an autoencoder of LDM networks: {'; '.join(problems)}. Give another."
        )
    return Architecture(
        image_channels=image_channels,
        latent_channels=latent_channels,
        channels=tuple(config.get("block_out_channels", [64])),
        blocks=config.get("layers_per_block", 1),
        attention=tuple(i for i, block in enumerate(blocks) if block.startswith("Attn")),
        norm_groups=config.get("norm_num_groups", 32),
        num_embeddings=config.get("num_vq_embeddings", 256) if name == CLASSES[1] else None,
    )


def _read_compvis(path: Path) -> Imported:
    given = _tensors(path)
    if any(name.startswith(_FIRST_STAGE) for name in given):
        given = {n.removeprefix(_FIRST_STAGE): value for n, value in given.items() if n.startswith(_FIRST_STAGE)}
    given = {name: value for name, value in given.items() if not name.startswith(_TRAINING)}
    shapes = shapes_of(given)
    sizes = deduced(shapes, "down", "block", "attn")
    needed = "encoder.conv_in.weight", "post_quant_conv.weight"
    if not sizes["channels"] or any(name not in shapes for name in needed):
        raise ValueError(
            f"{path}: not an autoencoder of CompVis: it has no encoder.down.0.block.0.conv1.weight, or none of"
            f" {' and '.join(needed)}; it has {some(list(given))}. Give another file, or the folder of a diffusers"
            " autoencoder."
        )
    codes = shapes.get("quantize.embedding.weight")
    architecture = Architecture(
        image_channels=shapes[needed[0]][1],
        latent_channels=shapes[needed[1]][0],
        num_embeddings=codes[0] if codes else None,
        **sizes,
    )
    levels = len(architecture.channels)
    state = _renamed(path, given, architecture, lambda name: to_compvis(name, levels))
    return Imported(path, architecture, state, None, None)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name, read without running its code."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"{path}: there is no such file or folder. Give a diffusers folder or a CompVis checkpoint.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). Download it again.") from error
    except Exception as error:  # unpickling raises many kinds of error
        raise ValueError(
            f"{path}: cannot be read without running its code ({str(error).partition(chr(10))[0]}). Take its"
            " .safetensors, or, if you trust the file, save its weights alone:"
            " torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW)."
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(
    path: Path, given: Mapping[str, Tensor], architecture: Architecture, translate: Callable[[str], str]
) -> dict[str, Tensor]:
    """All weights under the names of this project; a 1x1 convolution becomes a linear layer where there is one here."""
    try:
        expected = architecture.shapes()
    except ValueError as error:
        raise ValueError(f"{path}: not an autoencoder of LDM networks: {error}") from error
    theirs = {translate(name): shape for name, shape in expected.items()}
    reshaped = {}
    for name, value in given.items():
        is_linear = len(theirs.get(name, ())) == 2 and value.shape[2:] == (1, 1)
        reshaped[name] = (value.flatten(1) if is_linear else value).float()
    if different := differences(shapes_of(reshaped), theirs):
        raise ValueError(f"{path}: its weights are not those of its architecture, {architecture}: {different}.")
    return {name: reshaped[translate(name)].contiguous() for name in expected}
