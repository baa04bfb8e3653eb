"""What an adversarial training step costs, part by part, and against the step as it is usually written.

The usual step differentiates the perceptual and the adversarial loss down to the decoder's last layer for the adaptive
weight, and then again for the step itself: two backward passes through each of the two networks, where ours has one.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.features import LPIPS
from lit_vae.images import Batch
from lit_vae.likelihoods import Laplace
from lit_vae.models.kl_autoencoder import KLAutoencoder
from lit_vae.networks import LDMDecoder, LDMEncoder, PatchDiscriminator
from lit_vae.objectives import ELBO, Hinge
from lit_vae.objectives.adversarial import EPS
from lit_vae.realism import Adversary, Perceptual, Realism

STEP = 1  # of training: the game is being played


class Case(NamedTuple):
    """Images and the width of the autoencoder."""

    batch: int
    size: int
    width: int
    layers: int
    rounds: int


CASE = Case(batch=4, size=64, width=64, layers=3, rounds=7)
QUICK = Case(batch=1, size=16, width=8, layers=1, rounds=1)


def autoencoder(
    case: Case, perceptual: bool, adversary: bool, max_adaptive_weight: float | None = 1e4
) -> KLAutoencoder:
    """An LDM autoencoder of f4; the same weights each time."""
    torch.manual_seed(0)
    judge = partial(PatchDiscriminator, layers=case.layers)
    game = Adversary(judge, Hinge(), 0.5, max_adaptive_weight=max_adaptive_weight) if adversary else None
    distance = Perceptual(random_lpips()) if perceptual else None
    realism = Realism(distance, game) if distance or game else None
    network = {"width": case.width, "multipliers": [1, 2, 4], "norm_groups": min(32, case.width)}
    return KLAutoencoder(
        [3, case.size, case.size],
        [4, case.size // 4, case.size // 4],
        partial(LDMEncoder, **network),
        partial(LDMDecoder, **network),
        Laplace(1.0, learned=False),
        ELBO(beta=1e-6),
        partial(torch.optim.Adam, lr=1e-4),
        realism=realism,
    )


def random_lpips() -> LPIPS:
    """LPIPS that says nothing of its random weights: they cost what trained ones do."""
    lpips = LPIPS("vgg16", weights="random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert lpips.trunk.network
    return lpips


def loss(model: KLAutoencoder, x: Tensor) -> Tensor:
    """Of a training step, by the component."""
    terms, x_hat, distortion = _family(model, x)
    if model.realism is None:
        return terms.mean()
    added = model.realism(x, x_hat, distortion, model.likelihood.temperature, model.decoder.last_layer, STEP)
    return (terms + added.terms["loss"]).mean() + added.other_loss


def usual_loss(model: KLAutoencoder, x: Tensor) -> Tensor:
    """The same loss with the adaptive weight as published code computes it."""
    terms, x_hat, distortion = _family(model, x)
    realism, last = model.realism, model.decoder.last_layer
    assert realism is not None
    assert realism.perceptual is not None
    assert realism.adversary is not None
    perceptual = realism.perceptual.nats(realism.perceptual(x, x_hat), x, model.likelihood.temperature)
    discriminator = realism.adversary.discriminator
    assert discriminator is not None
    discriminator.requires_grad_(False)
    generator = realism.adversary.loss.generator(discriminator(x_hat))
    discriminator.requires_grad_(True)
    norms = [
        torch.autograd.grad(term.mean(), last, retain_graph=True)[0].norm()
        for term in (distortion + perceptual, generator)
    ]
    weight = 0.5 * (norms[0] / (norms[1] + EPS)).clamp(max=1e4)
    real, fake = discriminator(torch.cat([x, x_hat.detach()])).chunk(2)
    return (terms + perceptual + weight * generator).mean() + realism.adversary.loss.discriminator(real, fake).mean()


def _family(model: KLAutoencoder, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.full((len(x),), -1, device=x.device)
    result = model.step(Batch(x, y), STEP, None)
    assert result.decoded is not None
    return result.terms["loss"], result.decoded.mean[0], result.terms["distortion"]


def seconds(model: KLAutoencoder, x: Tensor, compute: Callable[[KLAutoencoder, Tensor], Tensor] = loss) -> float:
    """Of one step, the optimizer's included."""
    optimizer = model.__dict__.setdefault("_benchmarked", model.configure_optimizers())
    start = now(x.device)
    optimizer.zero_grad()
    compute(model, x).backward()
    optimizer.step()
    return now(x.device) - start


def run(device: torch.device, quick: bool) -> list[Row]:
    """Steps with more and more parts, each as a ratio to the step without any."""
    case = QUICK if quick else CASE
    x = torch.rand(case.batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    bare, ours, usual = "autoencoder alone", "+ LPIPS + discriminator, adaptive weight", "the same as usually written"
    models = {
        bare: autoencoder(case, False, False),
        "+ LPIPS": autoencoder(case, True, False),
        "+ discriminator, fixed weight": autoencoder(case, False, True, None),
        "+ LPIPS + discriminator, fixed weight": autoencoder(case, True, True, None),
        ours: autoencoder(case, True, True),
        usual: autoencoder(case, True, True),
    }
    for model in models.values():
        model.to(device).train()
    variants = {
        name: partial(seconds, model, x, usual_loss if name == usual else loss) for name, model in models.items()
    }
    taken = interleave(variants, case.rounds)
    name = f"adversarial step, 64-128-256, {case.batch} images of {case.size}x{case.size}"
    rows = [Row(name, bare, 1e3 * spread(taken[bare]).median, "ms")]
    for variant in list(models)[1:-1]:
        milliseconds = 1e3 * spread(taken[variant]).median
        rows.append(Row(name, variant, milliseconds, "ms", bare, ratio(taken, variant, bare)))
    slower = ratio(taken, usual, ours)
    rows.append(Row(name, usual, 1e3 * spread(taken[usual]).median, "ms", ours, slower))
    return rows
