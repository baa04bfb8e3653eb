"""A small KL autoencoder with a perceptual distance and a discriminator, as networks that need no file."""

from functools import partial

import torch
from torch import Tensor, nn

from lit_vae.features import PerceptualDistance
from lit_vae.features.base import Frozen
from lit_vae.likelihoods import Laplace
from lit_vae.models import KLAutoencoder
from lit_vae.networks import ConvDecoder, ConvEncoder, PatchDiscriminator
from lit_vae.objectives import ELBO, Hinge
from lit_vae.realism import Adversary, Perceptual, Realism


def _network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        f32 = torch.float32  # the same numbers, whatever the default is when it is built
        layers = nn.Conv2d(1, 4, 3, padding=1, dtype=f32), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1, dtype=f32)
        return nn.Sequential(*layers)


class SmallDistance(PerceptualDistance):
    """Mean squared difference of a small frozen network's features."""

    name = "small"

    def __init__(self) -> None:
        super().__init__()
        self.seen_by = Frozen(_network)

    def embed(self, x: Tensor) -> list[Tensor]:
        return [self.seen_by(x)]

    def distance(self, target, x_hat: Tensor) -> Tensor:
        return (target[0] - self.seen_by(x_hat)).square().flatten(1).mean(1)

    def provenance(self) -> dict[str, str]:
        return {"network": "two convolutions"}


def new_realism(weight=0.5, lr=1e-3, **given) -> Realism:
    discriminator = partial(PatchDiscriminator, width=4, layers=1)
    adversary = Adversary(
        **{"discriminator": discriminator, "loss": Hinge(), "weight": weight, "optimizer": {"lr": lr}, **given}
    )
    return Realism(Perceptual(SmallDistance()), adversary)


def new_autoencoder(realism: Realism | None, **given) -> KLAutoencoder:
    """Images of 8 x 8 pixels; the same weights every time."""
    torch.manual_seed(0)
    arguments = {
        "image_shape": [1, 8, 8],
        "latent_shape": [2, 4, 4],
        "encoder": partial(ConvEncoder, width=8, multipliers=[1, 1]),
        "decoder": partial(ConvDecoder, width=8, multipliers=[1, 1]),
        "likelihood": Laplace(0.3),
        "objective": ELBO(beta=1e-3),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "realism": realism,
    }
    return KLAutoencoder(**{**arguments, **given})
