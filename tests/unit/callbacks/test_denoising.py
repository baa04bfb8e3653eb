"""Pictures of diffusion models, with the best network of independent binary pixels."""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

from callbacks import Denoising, LossOverNoise
from callbacks.drawing import sheet
from callbacks.loss_over_noise import loss_by_level
from lit_vae.diffusion import (
    DDIM,
    Bound,
    ClassifierFree,
    GaussianDiffusion,
    Heun,
    LinearLogSNR,
    Original,
    PixelLevels,
    Sampling,
)
from lit_vae.diffusion.log_snr import alpha, per_image, sigma
from lit_vae.images import Batch
from lit_vae.models import LatentDiffusion, VariationalDiffusion

ADAM = partial(torch.optim.Adam, lr=1e-3)
SHAPE = [1, 4, 4]
SHARE = 0.25
"""Of the pixels that are 1; of the second class it is the share of the others."""


class Best(nn.Module):
    """``E[x | z, class]``; without a class, that of even pixels."""

    def __init__(self, shape: Any, cond_dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.logit(torch.tensor([SHARE, 1.0 - SHARE, 0.5])[: max(cond_dim, 1)]))

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        logit = self.logits[:1].expand(len(z)) if cond is None else cond @ self.logits
        return torch.tanh(per_image(alpha(lam) / sigma(lam) ** 2, z) * z + 0.5 * per_image(logit, z))


def diffusion(**given: Any) -> VariationalDiffusion:
    process = GaussianDiffusion(LinearLogSNR(6.0, -11.0), Original(), Bound())
    return VariationalDiffusion(SHAPE, Best, process, PixelLevels(2), ADAM, **given).eval()


@torch.no_grad()
@pytest.mark.parametrize("sampler", [DDIM(1.0), Heun()], ids=str)
def test_a_row_is_an_image_on_its_way_and_ends_with_the_sample(sampler: Any) -> None:
    model = diffusion(num_classes=2, sampling=Sampling(9, sampler, guidance=ClassifierFree(2.0)))
    panel, y = Denoising(num_images=3, columns=5, seed=4), torch.tensor([0, 1, 0])
    told: list[Tensor] = []
    model.sampling.watch = lambda node, lams, x_hat: told.append(x_hat)
    sampled = model.sample(3, y, generator=Generator().manual_seed(4))
    model.sampling.watch = None
    expected = torch.stack([told[node] for node in (0, 2, 4, 6, 8)], 1)
    assert torch.allclose(expected[:, -1].float().clamp(-1.0, 1.0), sampled)
    lams = ["λ −11.0", "λ −6.8", "λ −2.5", "λ 1.8", "λ 6.0"]  # noqa: RUF001
    picture = np.asarray(panel.draw(model))
    np.testing.assert_array_equal(picture, np.asarray(sheet(expected, ["0", "1", "0"], lams)))
    torch.rand(3)
    np.testing.assert_array_equal(picture, np.asarray(panel.draw(model)))
    assert not np.array_equal(picture, np.asarray(Denoising(3, 5, seed=5).draw(model)))
    assert model.sampling.watch is None


@torch.no_grad()
def test_a_short_grid_is_shown_whole_and_the_caption_says_how() -> None:
    model, panel = diffusion(sampling=Sampling(3)), Denoising(2)
    panel.check_model(model)
    assert panel.caption.endswith("at log-SNRs λ; one row per image, 3 steps of DDIM")
    assert np.array(panel.draw(model).info["cells"]).shape[:2] == (2, 3)


def quarter(n: int) -> Tensor:
    """Images with exactly `SHARE` of their pixels at 1, in other places."""
    places = torch.rand(n, 16, generator=Generator().manual_seed(0)).argsort(1)
    return (places < 16 * SHARE).float().mul(2.0).sub(1.0).view(n, *SHAPE)


def batches(x: Tensor, size: int = 600) -> list[Batch]:
    return [Batch(part, torch.full((len(part),), -1)) for part in x.split(size)]


@torch.no_grad()
def test_the_area_is_the_entropy_of_the_pixels_with_the_best_network() -> None:
    """Between ends where a state says nothing and all: ``dI(x; z) / d lam = 1/2 E|eps - eps_hat|^2``."""
    nats = loss_by_level(diffusion(), batches(quarter(3000)), 33).diffusion
    entropy = -16.0 * (SHARE * math.log(SHARE) + (1.0 - SHARE) * math.log(1.0 - SHARE))
    error = float(nats.std()) / math.sqrt(len(nats))
    assert error < 0.06
    assert float(nats.mean()) == pytest.approx(entropy, abs=4.0 * error)


@torch.no_grad()
def test_an_image_has_its_own_noise_whatever_the_batches() -> None:
    whole, parts = (loss_by_level(diffusion(), batches(quarter(10), size), 5) for size in (10, 3))
    assert torch.allclose(whole.losses, parts.losses, atol=1e-5)
    assert whole.losses.shape == (5, 10)
    assert whole.lams.tolist() == [-11.0, -6.75, -2.5, 1.75, 6.0]


@torch.no_grad()
def test_the_figure_has_the_mean_and_its_area() -> None:
    model, x = diffusion(), quarter(20)
    images: Any = SimpleNamespace(example_dataloader=lambda n, split: batches(x[:n]) if split == "val" else None)
    axes = LossOverNoise(12, 9).figure(model, images).axes[0]
    found = loss_by_level(model, batches(x[:12]), 9)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.losses.mean(1))
    assert axes.get_title().startswith(f"area: {float(found.diffusion.mean()):.2f} ± ")
    assert LossOverNoise(12, 9).draw(model, images).mode == "RGB"


@pytest.mark.parametrize("panel", [Denoising(), LossOverNoise()], ids=lambda panel: panel.name)
def test_other_models_are_refused(panel: Any, new_model: Any, new_trainer: Any, data: Any) -> None:
    name = type(panel).__name__
    with pytest.raises(ValueError, match=f"{name}: it needs a lit_vae.models.denoising.DenoisingModel, .* is a VAE"):
        new_trainer(panel).fit(new_model("VAE"), datamodule=data)


@torch.no_grad()
def test_latents_on_their_way_are_decoded() -> None:
    process = GaussianDiffusion(LinearLogSNR(5.0, -12.0), Original(), Bound())
    model = LatentDiffusion([2, 4, 4], Unit, process, ADAM).eval()
    model.latent_std.fill_(0.5)
    model.latent_mean.fill_(0.25)
    panel, y = Denoising(num_images=3, columns=4), model.labels_for(3, None)
    panel.decoder = Doubled()  # type: ignore[assignment]
    lams, images = panel.expected(model, y)
    assert images.shape == (len(lams), 3, 1, 4, 4)
    sampled = model.sample_through(panel.decoder, y, generator=Generator().manual_seed(0))  # type: ignore[arg-type]
    assert torch.allclose(images[-1], sampled)
    assert float((images[0] - 0.5).abs().max()) < 0.05  # twice the mean latent
    assert np.array(panel.draw(model).info["cells"]).shape[:2] == (3, 4)


@torch.no_grad()
def test_latents_have_a_loss_over_noise_too() -> None:
    """Unit normal latents with the best network: each dimension has ``1/2 ln(1 + SNR)`` nats at the end."""
    model = LatentDiffusion([2, 4, 4], Unit, GaussianDiffusion(LinearLogSNR(5.0, -9.0), Original(), Bound()), ADAM)
    z = torch.randn(2000, 2, 4, 4, generator=Generator().manual_seed(0))
    nats = loss_by_level(model.eval(), [Batch(z, torch.full((2000,), -1))], 33).diffusion
    assert float(nats.mean()) == pytest.approx(
        16.0 * math.log((1 + math.exp(5.0)) / (1 + math.exp(-9.0))), abs=4 * float(nats.std()) / math.sqrt(2000) + 0.05
    )


class Unit(nn.Module):
    """``E[x | z]`` of unit normal x."""

    def __init__(self, shape: Any, cond_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, lam: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.scale * per_image(alpha(lam), z) * z


class Doubled(nn.Module):
    """A stage 1 that decodes twice the first channel."""

    dtype = torch.float32

    def decode(self, z: Tensor, y: Tensor) -> Any:
        return SimpleNamespace(mean=2.0 * z[:, :1])
