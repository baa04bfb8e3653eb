"""Architecture of an autoencoder of LDM networks, and the shapes of its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lit_vae.images import Shape
from lit_vae.models.base import Autoencoder
from lit_vae.networks import LDMDecoder, LDMEncoder
from lit_vae.run.weights import shapes_of

CODEBOOK = "quantizers.0.codebook.weight"
"""Name of the codebook in the ``state_dict`` of a `lit_vae.models.VQVAE`."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of an autoencoder whose networks are `LDMEncoder` and `LDMDecoder`.

    Attributes:
        image_channels: channels of the images.
        latent_channels: channels of the decoder's input.
        channels: channels at each resolution, the finest first.
        blocks: residual blocks of the encoder at each resolution.
        attention: indices of resolutions with attention, counted from the finest.
        norm_groups: groups of every GroupNorm.
        num_embeddings: number of codes of a VQ-VAE; None for a Gaussian posterior.
    """

    image_channels: int
    latent_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = ()
    norm_groups: int = 32
    num_embeddings: int | None = None

    def init_args(self, height: int) -> dict[str, Any]:
        """``init_args`` of both networks for images of this height."""
        width = math.gcd(*self.channels)
        return {
            "width": width,
            "multipliers": [c // width for c in self.channels],
            "blocks": self.blocks,
            "attention": [height >> level for level in self.attention],
            "norm_groups": self.norm_groups,
        }

    def latent_shape(self, height: int, width: int) -> Shape:
        """Shape ``(c, h, w)`` of the latent of an image.

        Raises:
            ValueError: the image cannot be halved often enough.
        """
        factor = 2 ** (len(self.channels) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"images of {height}x{width}: both sides must be divisible by {factor}, since the networks halve an"
                f" image {len(self.channels) - 1} times. Give another size."
            )
        return self.latent_channels, height // factor, width // factor

    def shapes(self) -> dict[str, Shape]:
        """Names and shapes of all weights in a model of this project."""
        size = 2 ** (len(self.channels) - 1)
        image, latent = (self.image_channels, size, size), self.latent_shape(size, size)
        encoded = latent if self.num_embeddings else (2 * latent[0], *latent[1:])
        with torch.device("meta"):
            encoder = LDMEncoder(image, encoded, **self.init_args(size))
            decoder = LDMDecoder(latent, image, **self.init_args(size))
        found = {f"encoder.{name}": shape for name, shape in shapes_of(encoder.state_dict()).items()}
        found |= {f"decoder.{name}": shape for name, shape in shapes_of(decoder.state_dict()).items()}
        return found | ({CODEBOOK: (self.num_embeddings, self.latent_channels)} if self.num_embeddings else {})


def architecture_of(model: Autoencoder) -> Architecture:
    """The architecture of a model.

    Raises:
        ValueError: its networks are not those of latent diffusion.
    """
    encoder, decoder = getattr(model, "encoder", None), model.decoder
    if not isinstance(encoder, LDMEncoder) or not isinstance(decoder, LDMDecoder):
        raise ValueError(
            f"its networks are {type(encoder).__name__} and {type(decoder).__name__}, which others do not have. Train a"
            " model of lit_vae.networks.LDMEncoder and LDMDecoder."
        )
    shapes = shapes_of(model.state_dict())
    return Architecture(
        image_channels=encoder.stem.in_channels,
        latent_channels=decoder.post_quant.in_channels,
        norm_groups=encoder.norm.num_groups,
        num_embeddings=shapes[CODEBOOK][0] if CODEBOOK in shapes else None,
        **deduced(shapes, "levels", "blocks", "attention"),
    )


def is_shared(name: str) -> bool:
    """Whether other libraries have this weight, too: a weight of a network, or the codebook."""
    return name.startswith(("encoder.", "decoder.")) or name == CODEBOOK


def deduced(shapes: Mapping[str, Shape], level: str, block: str, attention: str) -> dict[str, Any]:
    """Channels, blocks and attention of an encoder, from the names and shapes of its weights.

    Args:
        shapes: shapes of the weights by name.
        level: name of a resolution, as in ``encoder.<level>.0.<block>.0.conv1.weight``.
        block: name of a residual block.
        attention: name of an attention block.
    """

    def count(prefix: str) -> int:
        return len({name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)})

    levels = range(count(f"encoder.{level}."))
    firsts = [f"encoder.{level}.{i}.{block}.0.conv1.weight" for i in levels]
    return {
        "channels": tuple(shapes[first][0] for first in firsts if first in shapes),
        "blocks": count(f"encoder.{level}.0.{block}."),
        "attention": tuple(i for i in levels if count(f"encoder.{level}.{i}.{attention}.")),
    }
