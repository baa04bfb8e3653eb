"""Diffusion of latents against latents whose density is known."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from best_denoiser import ADAM, SHAPE, STD, Best, prior
from torch import Generator

from lit_vae.codes import CodeSpec
from lit_vae.diffusion import Bound, ClassifierFree, GaussianDiffusion, LinearLogSNR, Original, Sampling
from lit_vae.images import ImageSpec
from lit_vae.latents import LatentBatch, LatentSpec
from lit_vae.models import LatentDiffusion
from lit_vae.networks import DiT
from lit_vae.noise import FIXED, Draws
from lit_vae.sampling import CodeSampling

SPEC = LatentSpec(
    checkpoint="stage1.ckpt", checkpoint_sha256="0" * 64, model="lit_vae.models.KLAutoencoder", image_shape=(1, 12, 12),
    num_classes=0, bits_per_dim=None, shape=(2, 3, 3), mean=(1.0, -2.0), std=(0.5, 3.0), entropy={"val": -4.0},
)  # fmt: skip


@torch.no_grad()
def test_the_bound_is_the_entropy_of_the_latents_in_their_own_units() -> None:
    """Oracle: the entropy of a Gaussian, plus ``sum ln std`` of the scaling."""
    model, n = prior(), 100_000
    model.latent_std.copy_(torch.tensor(SPEC.std).view(-1, 1, 1))
    z = STD * torch.randn(n, *SHAPE, generator=Generator().manual_seed(0))
    terms = model.step(LatentBatch(z, torch.full((n,), -1)), None, Draws(0, FIXED, torch.arange(n))).terms
    entropy = 18 * 0.5 * math.log(2.0 * math.pi * math.e * STD**2) + 9 * math.log(0.5 * 3.0)
    error = float(terms["latent_nll"].view(20, -1).mean(1).std()) / math.sqrt(20)  # the levels of each part are even
    assert error < 0.1
    assert float(terms["latent_nll"].mean()) == pytest.approx(entropy, abs=4.0 * error)
    scaled = terms["prior"] + terms["last"] + terms["diffusion"]
    assert torch.allclose(terms["latent_nll"] - scaled, torch.tensor(9 * math.log(1.5)), atol=1e-4)
    assert torch.equal(terms["loss"], scaled)


def test_the_rate_is_the_bound_without_the_entropy_of_the_posterior() -> None:
    found = prior()._with_derived({"latent_nll": torch.tensor(10.0)}, "val", SPEC)
    assert float(found["rate"]) == 14.0
    assert "rate" not in prior()._with_derived({"latent_nll": torch.tensor(10.0)}, "test", SPEC)


def test_without_a_posterior_there_is_a_bound_of_the_latents_and_no_rate() -> None:
    deterministic = replace(SPEC, entropy=None)
    assert prior()._with_derived({"latent_nll": torch.tensor(10.0)}, "val", deterministic).keys() == {"latent_nll"}
    assert prior().evaluation_names(SPEC) - prior().evaluation_names(deterministic) == {"val/rate"}


@torch.no_grad()
def test_draws_have_the_moments_of_the_latents_that_stage_1_decodes() -> None:
    model = prior(sampling=Sampling(200))
    model.latent_mean.copy_(torch.tensor(SPEC.mean).view(-1, 1, 1))
    model.latent_std.copy_(torch.tensor(SPEC.std).view(-1, 1, 1))
    z = model.sample_latents(torch.full((4000,), -1), Generator().manual_seed(0))
    for channel, (mean, std) in enumerate(zip(SPEC.mean, SPEC.std, strict=True)):
        of_channel = z[:, channel]
        assert float(of_channel.mean()) == pytest.approx(mean, abs=4.0 * std * STD / math.sqrt(36_000))
        assert float(of_channel.std()) == pytest.approx(std * STD, rel=0.03)


def test_a_latent_that_is_no_map_is_refused() -> None:
    process = GaussianDiffusion(LinearLogSNR(), Original(), Bound())
    with pytest.raises(ValueError, match="must be that of a map"):
        LatentDiffusion([16], Best, process, ADAM)


@pytest.mark.parametrize(
    ("spec", "given", "problem"),
    [
        (ImageSpec(1, 12, 12, 0, "uint8"), {}, "the data are images. Take lit_vae.data.Latents"),
        (
            CodeSpec(
                checkpoint="", checkpoint_sha256="", model="", image_shape=(1, 4, 4), num_classes=0, bits_per_dim=None,
                grids=((2, 2),), num_embeddings=(8,), distortion={},
            ),
            {},
            "the data are codes",
        ),
        (SPEC, {"sampling": Sampling(guidance=ClassifierFree(2.0))}, "guidance needs classes"),
        (SPEC, {"num_classes": 3}, "must be the number of the data's labels"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_told(spec: Any, given: dict[str, Any], problem: str) -> None:
    (found,) = prior(**given).problems(spec)
    assert problem in found


def test_a_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LatentDiffusion: temperature \(=0\.5\) must be 1"):
        prior().sample_through(None, torch.zeros(2), CodeSampling(temperature=0.5))  # type: ignore[arg-type]


@torch.no_grad()
def test_under_bf16_levels_losses_and_states_stay_wide() -> None:
    """bfloat16 has 8 bits: a level of 9.97 would be 10, and a sum of steps would lose the small ones."""
    torch.set_default_dtype(torch.float32)  # as in a training
    torch.manual_seed(0)
    process = GaussianDiffusion(LinearLogSNR(8.0, -8.0), Original(), Bound())
    network = partial(DiT, patch=1, width=16, layers=1, heads=2)
    model = LatentDiffusion(SHAPE, network, process, ADAM, sampling=Sampling(steps=4), num_classes=3).eval()
    for weight in model.parameters():  # DiT starts as zero
        weight.add_(0.05 * torch.randn_like(weight))
    batch = LatentBatch(torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, -1]))
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    model.network.register_forward_pre_hook(lambda _, given: seen.append((given[0].dtype, given[1].dtype)))
    states: list[torch.dtype] = []
    model.sampling.watch = lambda k, lams, x_hat: states.append(x_hat.dtype)
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms = model.step(batch, None, Draws(0, FIXED, torch.arange(4))).terms
            drawn = model.draw(torch.arange(3), generator=Generator().manual_seed(0))
        found.append((terms["latent_nll"], drawn))
        assert {value.dtype for value in terms.values()} == {torch.float32}
        assert drawn.dtype == torch.float32
    assert set(seen) == {(torch.float32, torch.float32)}
    assert set(states) == {torch.float64}
    for full, half in zip(*found, strict=True):
        assert not torch.equal(full, half)  # the network itself is in bfloat16
        torch.testing.assert_close(half, full, rtol=0.02, atol=0.02)
