"""A perceptual distance and a discriminator that are small and smooth, for oracles."""

from functools import partial

import torch
from torch import Tensor, nn

from lit_vae.features import PerceptualDistance
from lit_vae.likelihoods import Laplace
from lit_vae.models import KLAutoencoder
from lit_vae.networks import ConvDecoder, ConvEncoder, PatchDiscriminator
from lit_vae.objectives import ELBO, Hinge
from lit_vae.realism import Adversary, Perceptual, Realism

SHAPE = (1, 8, 8)


class Squares(PerceptualDistance):
    """``mean (x^3 - x_hat^3)^2``: a network that needs no file."""

    name = "squares"

    def embed(self, x: Tensor) -> list[Tensor]:
        return [x**3]

    def distance(self, target, x_hat: Tensor) -> Tensor:
        return (target[0] - x_hat**3).square().flatten(1).mean(1)

    def provenance(self) -> dict[str, str]:
        return {"network": "cubes"}


def new_adversary(weight=0.5, **given) -> Adversary:
    discriminator = partial(PatchDiscriminator, width=4, layers=1)
    return Adversary(**{"discriminator": discriminator, "loss": Hinge(), "weight": weight, **given})


def new_realism(perceptual_weight=0.7, **given) -> Realism:
    return Realism(Perceptual(Squares(), perceptual_weight), new_adversary(**given))


def new_autoencoder(realism: Realism | None, likelihood=None, **given) -> KLAutoencoder:
    torch.manual_seed(0)
    arguments = {
        "image_shape": list(SHAPE),
        "latent_shape": [2, 4, 4],
        "encoder": partial(ConvEncoder, width=8, multipliers=[1, 1]),
        "decoder": partial(ConvDecoder, width=8, multipliers=[1, 1]),
        "likelihood": likelihood or Laplace(0.3),
        "objective": ELBO(beta=1e-3),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "realism": realism,
    }
    return KLAutoencoder(**{**arguments, **given})


def images(number: int = 6, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(number, *SHAPE, generator=generator, dtype=torch.float64).to(torch.get_default_dtype()) * 2 - 1


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
