"""Latents that turn and shrink with the image: where that changes nothing, and what it changes."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_vae.equivariance import Equivariance, Transformation
from lit_vae.images import Batch
from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import VAE, EquivariantVAE
from lit_vae.networks import MLP, VQVAEDecoder, VQVAEEncoder
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal

LATENT, SHAPE = [2, 4, 4], [1, 8, 8]


class Repeat(nn.Module):
    """A decoder that commutes with turns: the first channel, each value four times."""

    def __init__(self, in_shape: Any, out_shape: Any, cond_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, z: Tensor, cond: Tensor | None = None) -> Tensor:
        return self.scale * z[:, :1].repeat_interleave(2, -1).repeat_interleave(2, -2)


def made(cls: Any = EquivariantVAE, decoder: Any = Repeat, latent: Any = LATENT, **given: Any) -> Any:
    torch.manual_seed(0)
    encoder = partial(VQVAEEncoder, width=4, residual_width=2, blocks=1)
    if cls is EquivariantVAE:
        given.setdefault("equivariance", Equivariance())
    optimizer = partial(torch.optim.Adam, lr=1e-3)
    return cls(SHAPE, StandardNormal(latent), encoder, decoder, FixedGaussian(variance=0.5), ELBO(), optimizer, **given)


def batch(n: int = 5) -> Batch:
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(x, torch.zeros(n, dtype=torch.long))


def draws(time: int = 0, n: int = 5, first: int = 0) -> Draws:
    return Draws(3, time, torch.arange(first, first + n))


def test_a_decoder_that_turns_with_its_latent_has_the_loss_of_a_vae() -> None:
    """Each pixel's error is at another place. Half of the latent's height is another loss."""
    turned = made(equivariance=Equivariance(share=1.0, min_scale=1.0))
    plain, seen = made(VAE), set()
    for time in range(12):
        expected = plain.step(batch(), 0, draws(time)).terms["loss"]
        result = turned.step(batch(), 0, draws(time))
        torch.testing.assert_close(result.terms["loss"], expected, rtol=1e-12, atol=0.0)
        seen.add(next(k for k in range(4) if torch.equal(result.target, torch.rot90(batch().x, k, (-2, -1)))))
    assert seen == {0, 1, 2, 3}


def test_smaller_maps_are_decoded_to_smaller_images() -> None:
    model = made(decoder=partial(VQVAEDecoder, width=4, residual_width=2, blocks=1))
    sides = set()
    for time in range(40):
        result = model.step(batch(), 0, draws(time))
        assert result.decoded.mean.shape[1:] == result.target.shape
        sides.add(result.target.shape[-1])
        tau = model.equivariance.draw(draws(time), 4, 4)
        assert torch.equal(result.target, tau(batch().x, 2))
        rate = made(VAE).step(batch(), 0, draws(time)).terms["rate"]  # of the latent as it is
        torch.testing.assert_close(result.terms["rate"], rate, rtol=1e-12, atol=0.0)
    assert sides == {2, 4, 6, 8}


def test_an_evaluation_and_batches_that_are_not_transformed_are_those_of_a_vae() -> None:
    never, plain = made(equivariance=Equivariance(share=1e-9)), made(VAE)
    for step in (None, 0):
        given = draws() if step == 0 else draws().fixed()
        again = draws() if step == 0 else draws().fixed()
        assert torch.equal(
            never.step(batch(), step, given).terms["loss"], plain.step(batch(), step, again).terms["loss"]
        )
    always = made(equivariance=Equivariance(share=1.0))
    assert torch.equal(
        always.step(batch(), None, draws()).terms["loss"], plain.step(batch(), None, draws()).terms["loss"]
    )


def test_turns_and_heights_are_equally_likely_and_the_same_on_all_ranks() -> None:
    equivariance, n = Equivariance(share=0.5, min_scale=0.25), 4000
    found = [equivariance.draw(draws(time), 8, 4) for time in range(n)]
    assert found == [equivariance.draw(draws(time, 2, 17), 8, 4) for time in range(n)]  # other images
    assert {tau.size for tau in found} == {(2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4), (8, 4)}
    changed = [tau for tau in found if tau != Transformation(0, (8, 4))]
    share = len(changed) / n
    assert share == pytest.approx(0.5 * (1 - 1 / 28), abs=4 * 0.5 / n**0.5)
    for counts, expected in (
        (Counter(tau.turns for tau in changed if tau.size != (8, 4)), 4),
        (Counter(tau.size for tau in changed if tau.turns), 7),
    ):
        assert len(counts) == expected
        mean = sum(counts.values()) / expected
        assert max(abs(count - mean) for count in counts.values()) < 4 * mean**0.5


def test_a_smaller_size_keeps_a_constant_and_a_slow_wave() -> None:
    tau = Transformation(0, (8, 8))
    assert torch.allclose(tau(torch.full((1, 1, 16, 16), 0.3)), torch.full((1, 1, 8, 8), 0.3))
    fast = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert float(tau(fast)[..., 1:-1].abs().max()) < 1e-6  # and not an alias of it


def test_perceptual_terms_compare_what_was_decoded() -> None:
    model, seen = made(equivariance=Equivariance(share=1.0)), []
    result = model.step(batch(), 0, draws(1))

    class Recorder:
        def __call__(self, x: Tensor, x_hat: Tensor, *_: Any) -> Any:
            seen.append((x, x_hat))
            raise KeyboardInterrupt

    model.__dict__["realism"] = Recorder()
    with pytest.raises(KeyboardInterrupt):
        model.add_terms(result, batch(), 0)
    x, x_hat = seen[0]
    assert torch.equal(x, result.target)
    assert x.shape == x_hat.shape


def test_networks_and_latents_that_do_not_fit_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"shape of the latent \(=\[7\]\) must be a map"):
        made(latent=[7])
    with pytest.raises(ValueError, match="sides divide those of the images"):
        made(latent=[2, 3, 3])
    (problem,) = made(decoder=partial(MLP, hidden=[4])).check_networks()
    assert problem.startswith("EquivariantVAE: the decoder must take latent maps of any size.")
    assert "[1, 1]" in problem
    assert made().check_networks() == []
