"""Latents of images, as a data set for a prior such as a diffusion model."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lit_vae.encoded import EncodedSpec
from lit_vae.images import Shape


class LatentBatch(NamedTuple):
    """One batch: ``z (B, *shape)``, mean 0 and variance 1 over the training set, and labels ``y (B,)`` int64.

    ``z`` is one draw of each image's posterior, scaled by `LatentSpec.scaled`. Labels are -1 for data without labels.
    """

    z: Tensor
    y: Tensor


@dataclass(frozen=True, kw_only=True)
class LatentSpec(EncodedSpec):
    """Description of a data set of latents, known before any is read. See `EncodedSpec` for the other arguments.

    Args:
        shape: of a latent: ``(c, h, w)`` or ``(d,)``.
        mean: of each channel, over posterior draws of the training images.
        std: of each channel, likewise.
        entropy: mean entropy of ``q(z | x)`` of each split in nats per image, of latents that are not scaled. None if
            stage 1 has no posterior, as an AE.
        realism: loss terms beside the likelihood that stage 1 was trained with: perceptual, adversarial.
    """

    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    entropy: dict[str, float] | None
    realism: tuple[str, ...] = ()

    @property
    def has_meaningful_likelihood(self) -> bool:
        """Whether stage 1 has a posterior, and was trained on a likelihood alone that is a probability of its images.

        Otherwise there is no bound of log p(x), or it is a number about a decoder that was trained for something else.
        """
        return self.entropy is not None and self.bits_per_dim is not None and not self.realism

    def scaled(self, z: Tensor) -> Tensor:
        """``(z - mean) / std`` of each channel, ``(B, *shape)``."""
        return (z - self._per_channel(self.mean, z)) / self._per_channel(self.std, z)

    def unscaled(self, z: Tensor) -> Tensor:
        """The inverse of `scaled`: what stage 1 decodes, ``(B, *shape)``."""
        return z * self._per_channel(self.std, z) + self._per_channel(self.mean, z)

    def _per_channel(self, values: tuple[float, ...], z: Tensor) -> Tensor:
        return torch.tensor(values, dtype=z.dtype, device=z.device).view(-1, *(1 for _ in self.shape[1:]))
