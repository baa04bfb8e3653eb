"""Variational diffusion against data whose best denoiser is known, and the noise of its images."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from lit_vae.diffusion import (
    DDIM,
    Bound,
    ClassifierFree,
    FlowVelocity,
    GaussianDiffusion,
    LinearLogSNR,
    Noise,
    Original,
    PixelLevels,
    Sampling,
    SquaredError,
)
from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.images import Batch, ImageSpec
from lit_vae.models import VariationalDiffusion
from lit_vae.networks import UNet
from lit_vae.noise import FIXED, Draws

ADAM = partial(torch.optim.Adam, lr=1e-3)
SHAPE = [1, 4, 4]
SHARE = torch.tensor([0.13, 0.6])
"""Of the pixels that are 1, by class."""


class BestOfBinaryPixels(nn.Module):
    """``E[x | z, class]`` of independent pixels; without a class, of their mixture's mean share."""

    def __init__(self, shape: Any, cond_dim: int) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.cat([SHARE, torch.tensor([0.3])])[: max(cond_dim, 1)])

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        share = self.shares[:1].expand(len(z)) if cond is None else cond @ self.shares.to(cond)
        logit = per_image(torch.logit(share), z)
        return torch.tanh(per_image(alpha(lam) / sigma(lam) ** 2, z) * z + 0.5 * logit)


def diffusion(network: Any = BestOfBinaryPixels, **given: Any) -> VariationalDiffusion:
    process = given.pop("diffusion", None) or GaussianDiffusion(LinearLogSNR(6.0, -11.0), Original(), Bound())
    return VariationalDiffusion(SHAPE, network, process, given.pop("likelihood", PixelLevels(2)), ADAM, **given).eval()


def binary(n: int, share: float, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=Generator().manual_seed(seed)).lt(share).float().mul(2.0).sub(1.0)


@torch.no_grad()
def test_with_the_best_network_the_bound_is_the_entropy_of_the_images() -> None:
    model, x = diffusion(), binary(60_000, float(SHARE[0]))
    terms = model.step(Batch(x, torch.full((len(x),), -1)), None, Draws(0, FIXED, torch.arange(len(x)))).terms
    p = float(SHARE[0])
    entropy = -16.0 * (p * math.log(p) + (1.0 - p) * math.log(1.0 - p))
    error = float(terms["elbo"].std()) / math.sqrt(len(x))
    assert error < 0.09
    assert -float(terms["elbo"].mean()) == pytest.approx(entropy, abs=4.0 * error)
    assert torch.allclose(terms["rate"], terms["prior"] + terms["diffusion"])
    assert torch.allclose(-terms["elbo"], terms["rate"] + terms["distortion"])
    assert torch.equal(terms["loss"], -terms["elbo"])


@torch.no_grad()
def test_a_fresh_network_costs_all_of_the_noise() -> None:
    """Its output is 0, so ``eps_hat = 0``, and the diffusion loss is half the range of the schedule a dimension."""
    process = GaussianDiffusion(LinearLogSNR(4.0, -9.0), Noise(), Bound())
    model, x = diffusion(partial(UNet, width=8, multipliers=[1]), diffusion=process), binary(4000, 0.3)
    diffused = model.step(Batch(x, torch.full((len(x),), -1)), None, None).terms["diffusion"]
    assert float(diffused.mean()) == pytest.approx(0.5 * 13.0 * 16, rel=0.02)


@torch.no_grad()
def test_an_objective_that_is_no_bound_leaves_the_reported_bound_as_it_is() -> None:
    x = binary(50, 0.13)
    batch = Batch(x, torch.full((len(x),), -1))
    bounded, trained = (
        diffusion(),
        diffusion(diffusion=GaussianDiffusion(LinearLogSNR(6.0, -11.0), Original(), SquaredError(FlowVelocity()))),
    )
    ours, theirs = (m.step(batch, None, Draws(0, FIXED, torch.arange(50))).terms for m in (bounded, trained))
    assert torch.equal(ours["elbo"], theirs["elbo"])
    assert not torch.equal(ours["loss"], theirs["loss"])
    assert set(trained.step(batch, 0, None).terms) == {"loss"}


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_draws_follow_the_images_of_their_class(eta: float) -> None:
    model = diffusion(num_classes=2, sampling=Sampling(100, DDIM(eta)))
    y = torch.arange(2000) % 2
    x = model.sample(2000, y, generator=Generator().manual_seed(0))
    assert x.abs().mean() > 0.98  # nearly all pixels are -1 or 1
    for label, share in enumerate(SHARE):
        assert float((x[y == label] > 0).float().mean()) == pytest.approx(float(share), abs=0.015)


@torch.no_grad()
def test_an_image_does_not_depend_on_those_that_are_drawn_with_it() -> None:
    model = diffusion(num_classes=2, sampling=Sampling(20, DDIM(1.0)))
    y, generator = torch.tensor([0, 1, 1, 0]), Generator()
    whole = model.sample(4, y, generator=generator.manual_seed(1))
    generator.manual_seed(1)
    parts = torch.cat([model.sample(1, y[:1], generator=generator), model.sample(3, y[1:], generator=generator)])
    assert torch.allclose(whole, parts, atol=1e-6)


@torch.no_grad()
def test_guidance_of_scale_one_is_none_and_more_of_it_is_more_typical() -> None:
    def share(scale: float | None) -> float:
        guidance = None if scale is None else ClassifierFree(scale)
        model = diffusion(num_classes=2, sampling=Sampling(30, guidance=guidance))
        return float(
            (model.sample(500, torch.ones(500, dtype=torch.int64), generator=Generator().manual_seed(2)) > 0)
            .float()
            .mean()
        )

    assert share(None) == share(1.0)
    assert share(3.0) > share(1.0) + 0.1


def test_a_share_of_the_labels_is_hidden_in_training_only() -> None:
    model = diffusion(num_classes=2, label_dropout=0.25)
    y = torch.arange(4000) % 2
    hidden = model._some_hidden(y, Draws(0, 7, torch.arange(4000))) == -1
    assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert model.condition(torch.tensor([0, 1, -1])).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spec", "given", "problem"),
    [
        (ImageSpec(1, 4, 4, 0, "uint8"), {}, "Set num_levels: 2 for binary and 256"),
        (ImageSpec(1, 4, 4, 0, "binary"), {"likelihood": PixelLevels(256)}, "Set num_levels: 2 for binary and 256"),
        (
            ImageSpec(1, 4, 4, 0, "binary"),
            {"sampling": Sampling(guidance=ClassifierFree(2.0))},
            "guidance needs classes",
        ),
        (
            ImageSpec(1, 4, 4, 2, "binary"),
            {"sampling": Sampling(guidance=ClassifierFree(2.0)), "num_classes": 2, "label_dropout": 0.0},
            "guidance needs hidden labels",
        ),
        (ImageSpec(1, 4, 4, 0, "binary"), {"num_classes": 2}, "must be the number of the data's labels"),
        (ImageSpec(1, 5, 4, 0, "binary"), {}, "is not the shape of the data's images"),
    ],
)
def test_data_that_do_not_fit_are_told(spec: ImageSpec, given: dict[str, Any], problem: str) -> None:
    (found,) = diffusion(**given).problems(spec)
    assert problem in found


def test_a_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="a diffusion model has none"):
        diffusion().sample(1, temperature=0.5)
