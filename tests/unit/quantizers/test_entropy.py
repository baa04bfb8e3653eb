"""The entropy penalty in chunks, against the same on full matrices."""

import math

import pytest
import torch

from lit_vae.quantizers import LFQ, EntropyPenalty, VectorQuantizer, entropy
from lit_vae.quantizers.entropy import diversity, groups_of_bits, sign_choice


def direct(z, codes, temperature):
    p = torch.softmax(-torch.cdist(z, codes.expand(len(z), -1, -1)).square() / temperature, 2)
    mean = p.mean((0, 1))
    return -(p * p.log()).sum((1, 2)) + z.shape[1] * (mean * mean.log()).sum()


def test_the_penalty_and_its_gradients_do_not_depend_on_the_chunks(float64, monkeypatch):
    monkeypatch.setattr(entropy, "_PROBABILITIES", 40)  # five vectors
    z = torch.randn(3, 7, 2, requires_grad=True)
    codes = torch.randn(8, 2, requires_grad=True)
    found = EntropyPenalty(temperature=0.7)(z, codes).penalty()
    expected = direct(z, codes, 0.7)
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([1.0, 2.0, 3.0])
    for got, wanted in zip(
        torch.autograd.grad(found @ weights, (z, codes)), torch.autograd.grad(expected @ weights, (z, codes)),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(got, wanted)


def test_its_range(float64):
    codes = torch.eye(4)
    certain_and_even = EntropyPenalty(temperature=1e-3)(codes.unsqueeze(0), codes).penalty()
    torch.testing.assert_close(certain_and_even, torch.tensor([-4 * math.log(4.0)]))
    collapsed = EntropyPenalty(temperature=1e-3)(codes[:1].repeat(1, 5, 1), codes).penalty()
    torch.testing.assert_close(collapsed, torch.zeros(1))


def test_it_reaches_the_encoder_through_the_quantizer_with_its_weight(float64):
    z_e = torch.randn(2, 3, 4, requires_grad=True)
    quantizer = VectorQuantizer(5, 3, commitment_cost=0.0, entropy=EntropyPenalty(0.4, temperature=2.0))
    codes = quantizer.codes.clone()  # of before the step
    quantized = quantizer(z_e)
    expected = direct(z_e.mT, codes, 2.0)
    torch.testing.assert_close(quantized.terms["entropy"], expected)
    torch.testing.assert_close(quantized.loss, 0.4 * expected)
    got = torch.autograd.grad(quantized.loss.sum(), z_e)[0]
    torch.testing.assert_close(got, torch.autograd.grad(0.4 * expected.sum(), z_e)[0])


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 12])
def test_the_penalty_of_signs_is_that_of_all_their_codes(d, float64):
    """Up to 12 bits exactly, with its gradient, by enumeration."""
    z = torch.randn(2, 5, d, requires_grad=True)
    codes = LFQ(d).vectors(torch.arange(2**d)).double()
    found, expected = sign_choice(z, 3.0).penalty(), direct(z, codes, 3.0)
    torch.testing.assert_close(found, expected)
    for got, wanted in zip(
        torch.autograd.grad(found.sum(), z), torch.autograd.grad(expected.sum(), z), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(got, wanted)
    p = torch.softmax(-torch.cdist(z.flatten(0, 1), codes).square() / 3.0, 1)
    torch.testing.assert_close(sign_choice(z, 3.0).usage[0], p.sum(0))  # by the index of a code


@pytest.mark.parametrize(("d", "groups", "bits"), [(12, 1, 12), (13, 2, 7), (18, 2, 9), (24, 2, 12)])
def test_more_bits_are_groups_of_equal_size(d, groups, bits, float64):
    """The entropy of the mean is the sum of the groups' own, which are exact."""
    assert groups_of_bits(d) == (groups, bits)
    z = torch.randn(2, 3, d)
    choice = sign_choice(z, 2.0)
    assert choice.usage.shape == (groups, 2**bits) == LFQ(d).batch_terms["usage"]
    parts = [direct(part, LFQ(part.shape[2]).vectors(torch.arange(2 ** part.shape[2])).double(), 2.0)
             for part in z.split(bits, 2)]  # fmt: skip
    torch.testing.assert_close(choice.penalty(), torch.stack(parts).sum(0))


def test_two_of_256_codes_are_two_codes(float64):
    """Every bit is even, since all are one bit: -0.690 nats, and not eight times that."""
    z = torch.where(torch.arange(100) < 46, 50.0, -50.0)[:, None, None].expand(100, 1, 8)
    assert sign_choice(z, 1.0).penalty().mean().item() == pytest.approx(-0.690, abs=5e-4)
    evenly = LFQ(8).vectors(torch.arange(256)).double()[:, None] * 50.0
    assert sign_choice(evenly, 1.0).penalty().mean().item() == pytest.approx(-8 * math.log(2.0), abs=1e-12)


def test_minimised_it_takes_bits_apart_that_are_one(float64):
    """From two codes, with a fifth of a standard deviation between bits; the sum of the bits' entropies stays there."""
    signs = torch.where(torch.arange(256) % 2 == 0, 0.5, -0.5)[:, None, None]
    z = torch.nn.Parameter(signs + 0.1 * torch.randn(256, 1, 8))

    def perplexity():
        counts = torch.bincount(LFQ(8)(z.detach().flatten(1)).indices, minlength=256) / 256
        return math.exp(-torch.special.xlogy(counts, counts).sum())

    assert perplexity() == pytest.approx(2.0)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(80):
        optimizer.zero_grad()
        sign_choice(z, 1.0).penalty().mean().backward()
        optimizer.step()
    assert perplexity() > 69.8


def test_saturated_signs_have_finite_gradients():
    z = torch.tensor([[[1e6, -1e6, 0.0] * 5]], requires_grad=True)
    sign_choice(z, 0.01).penalty().sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    "quantizer", [LFQ(3), LFQ(13), VectorQuantizer(20, 3, entropy=EntropyPenalty(0.3, 1.0))], ids=repr
)
def test_an_evaluation_leaves_what_is_of_a_batch_to_its_end(quantizer, float64):
    """From means over all images the loss is that of all in one batch, however they came."""
    quantizer.double().eval()
    z = torch.randn(6, quantizer.embedding_dim, 5)
    one, parts = quantizer(z), [quantizer(part) for part in z.split([3, 1, 2])]
    torch.testing.assert_close(torch.cat([part.loss for part in parts]), one.loss)
    assert quantizer.batch_terms == {"usage": parts[0].of_batch["usage"].shape[1:]}
    usage = sum(part.of_batch["usage"].sum(0) for part in parts) / 6
    evaluated = one.loss.mean() + quantizer.batch_loss({"usage": usage})
    weight = quantizer.entropy_weight if isinstance(quantizer, LFQ) else quantizer.entropy.weight
    torch.testing.assert_close(quantizer.batch_loss({"usage": usage}), -weight * diversity(usage))
    torch.testing.assert_close(quantizer.train()(z).loss.mean(), evaluated)


@pytest.mark.parametrize("given", [{"weight": -1.0}, {"temperature": 0.0}])
def test_errors_say_what_to_set(given):
    with pytest.raises(ValueError, match=rf"EntropyPenalty: {next(iter(given))} \(=.*\) must be .* 0\."):
        EntropyPenalty(**given)
