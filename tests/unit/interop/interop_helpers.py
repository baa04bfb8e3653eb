"""Small autoencoders of this project and of diffusers, with weights at random."""

from functools import partial
from typing import Any

import torch
from torch import nn

from lit_vae.likelihoods import Laplace, Likelihood
from lit_vae.models import VQVAE, KLAutoencoder
from lit_vae.networks import LDMDecoder, LDMEncoder
from lit_vae.objectives import ELBO
from lit_vae.quantizers import Quantizer, VectorQuantizer

SIZE, LATENT = 16, (4, 4, 4)
NETWORK: dict[str, Any] = {"width": 8, "multipliers": [1, 2, 2], "blocks": 2, "attention": [8], "norm_groups": 4}
CONFIG: dict[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
    "up_block_types": ("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "sample_size": SIZE,
}


def at_random(module: nn.Module, seed: int) -> nn.Module:
    """Also norms and biases, which start at ones and zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module.eval()


def gaussian(
    likelihood: Likelihood | None = None, decoder: dict[str, Any] = NETWORK, encoder: dict[str, Any] = NETWORK
) -> KLAutoencoder:
    networks = partial(LDMEncoder, **encoder), partial(LDMDecoder, **decoder)
    model = KLAutoencoder(
        [3, SIZE, SIZE], list(LATENT), *networks, likelihood or Laplace(), ELBO(beta=1e-6), torch.optim.Adam
    )
    at_random(model, 1)
    return model


def discrete(quantizer: Quantizer | None = None) -> VQVAE:
    networks = partial(LDMEncoder, **NETWORK), partial(LDMDecoder, **NETWORK)
    quantizer = quantizer or VectorQuantizer(12, LATENT[0])
    model = VQVAE([3, SIZE, SIZE], list(LATENT[1:]), quantizer, *networks, Laplace(), torch.optim.Adam)
    at_random(model, 2)
    return model


def images() -> torch.Tensor:
    return (
        torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)).to(torch.get_default_dtype()) * 2 - 1
    )
