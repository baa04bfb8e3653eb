"""VQ-VAE and VQ-VAE-2: the loss in nats, what its terms reach, codes to images and back."""

import math
from functools import partial

import pytest
import torch

from lit_vae.images import Batch, ImageSpec
from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import VQVAE, VQVAE2
from lit_vae.networks import HierarchicalEncoder, VQVAEDecoder, VQVAEEncoder
from lit_vae.quantizers import GradientCodebook, VectorQuantizer

ADAM = partial(torch.optim.Adam, lr=1e-3)
NARROW = {"width": 8, "residual_width": 4, "blocks": 1}
K, D = 7, 3


def quantizer(**given) -> VectorQuantizer:
    return VectorQuantizer(K, D, **{"codebook": GradientCodebook, **given})


def vqvae(size: int = 8, grid: int = 2, likelihood=None, **given) -> VQVAE:
    networks = partial(VQVAEEncoder, **NARROW), partial(VQVAEDecoder, **NARROW)
    model = VQVAE([1, size, size], [grid, grid], quantizer(**given), *networks, likelihood or FixedGaussian(0.5), ADAM)
    return model.double().eval()


def vqvae2(levels: int) -> VQVAE2:
    grids = [[2**i, 2**i] for i in range(levels)]
    size = 2 ** (levels + 1)
    return (
        VQVAE2(
            [1, size, size], grids, [quantizer() for _ in grids],
            partial(HierarchicalEncoder, **NARROW), partial(VQVAEDecoder, **NARROW), FixedGaussian(0.5), ADAM,
        ).double().eval()
    )  # fmt: skip


def images(model, n: int = 4) -> Batch:
    return Batch(torch.rand(n, *model.image_shape) * 2 - 1, torch.full((n,), -1))


MODELS = {"VQVAE": vqvae, "two levels": partial(vqvae2, 2), "three levels": partial(vqvae2, 3)}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_codes_alone_decode_to_what_the_loss_has_seen(make):
    """embed, encode_codes, lookup and decode_codes agree: nothing but the codes passes from encoder to decoder."""
    model = make()
    x, y = images(model)
    codes = model.encode_codes(x, y)
    assert [tuple(level.shape[1:]) for level in codes] == list(model.grids)
    torch.testing.assert_close(model.lookup(codes), model.embed(x, y))
    distortion = -model.decode_codes(codes, y).log_prob(x)
    torch.testing.assert_close(model.evaluation_terms(Batch(x, y), None)["distortion"], distortion)
    torch.testing.assert_close(model.reconstruct(x, y), model.decode_codes(codes, y).mean.clamp(-1, 1))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_rate_is_that_of_uniform_codes_and_the_elbo_a_bound(make):
    model = make()
    terms = model.evaluation_terms(images(model), None)
    positions = sum(h * w for h, w in model.grids)
    torch.testing.assert_close(terms["rate"], torch.full((4,), positions * math.log(K)))
    torch.testing.assert_close(terms["elbo"], -terms["distortion"] - terms["rate"])
    torch.testing.assert_close(terms["loss"], terms["distortion"] + terms["quantization"])


def test_the_loss_is_that_of_sonnet_up_to_its_factor():
    """MSE / variance + 0.25 mean ||z_e - e||^2, written out, times the values: see configs/vqvae/cifar10.yaml."""
    variance = 0.06327  # of the data in [0, 1]
    v = 0.5 * 4.0 * variance
    values, latents = 64, 4 * D
    model = vqvae(likelihood=FixedGaussian(v), commitment_cost=0.25 * values / latents)
    x, y = images(model)
    z_e = model.encoder(x, None)
    e = model.quantizers[0](z_e).z_q
    sonnet = ((model.decode(e, y).mean - x) / 2).square().mean() / variance + 0.25 * (z_e - e).square().mean()
    constant = 0.5 * values * math.log(2 * math.pi * v)
    terms = model.evaluation_terms(Batch(x, y), None)
    codebook = (z_e - e).square().flatten(1).sum(1)  # the third term, which Sonnet's moving averages stand for
    torch.testing.assert_close((terms["loss"] - codebook).mean() - constant, sonnet * values)


def gradients(model, loss) -> dict[str, bool]:
    model.zero_grad()
    loss.sum().backward(retain_graph=True)
    return {
        name: any(p.grad is not None and bool((p.grad != 0).any()) for p in getattr(model, name).parameters())
        for name in ("encoder", "quantizers", "decoder")
    }


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_each_term_reaches_only_what_it_should(make):
    model = make()
    terms = model.step(images(model), 0, None).terms
    last = len(model.quantizers) - 1
    reached = [terms["distortion"], terms[f"commitment_{last}" if last else "commitment"]]
    reached.append(terms["codebook_0" if last else "codebook"])
    by_distortion, by_commitment, by_codebook = (gradients(model, term) for term in reached)
    assert by_distortion == {"encoder": True, "quantizers": False, "decoder": True}
    assert by_commitment == {"encoder": True, "quantizers": False, "decoder": False}
    assert by_codebook == {"encoder": False, "quantizers": True, "decoder": False}


def test_the_bottom_is_encoded_given_the_top():
    """Algorithm 1, line 3: with other top codes, other bottom vectors."""
    model = vqvae2(2)
    features = model.encoder.features(images(model).x)
    e_top = torch.randn(4, D, 1, 1, requires_grad=True)
    model.encoder.latent(1, features, [e_top]).square().sum().backward()
    assert (e_top.grad != 0).all()


def test_uniform_codes_are_drawn_from_all_embeddings():
    model = vqvae()
    z = model.sample_latents(500, generator=torch.Generator().manual_seed(0))
    distances = torch.cdist(z.movedim(1, -1).reshape(-1, D), model.quantizers[0].codes)
    assert distances.min(1).values.max() < 1e-6
    shares = torch.bincount(distances.argmin(1), minlength=K) / 2000
    torch.testing.assert_close(shares, torch.full((K,), 1 / K), rtol=0, atol=0.03)


def test_what_does_not_fit_is_said():
    model = vqvae()
    assert model.problems(ImageSpec(1, 8, 8, 0, "uint8")) == []
    assert model.check_networks() == []
    with pytest.raises(ValueError, match=r"VQVAE2: grids \(=\[\[2, 2\]\]\) must be one \[height, width\] for each of"):
        VQVAE2([1, 8, 8], [[2, 2]], [quantizer()] * 2, HierarchicalEncoder, VQVAEDecoder, FixedGaussian(), ADAM)
    with pytest.raises(ValueError, match=r"VQVAEDecoder: the latent is 3x3, but must be the image \(8x8\) halved"):
        vqvae(grid=3)
