"""The entropy penalty in chunks, against the same on full matrices."""

import math

import pytest
import torch

from lit_vae.quantizers import LFQ, EntropyPenalty, VectorQuantizer, entropy
from lit_vae.quantizers.entropy import sign_entropy


def direct(z, codes, temperature):
    p = torch.softmax(-torch.cdist(z, codes.expand(len(z), -1, -1)).square() / temperature, 2)
    mean = p.mean((0, 1))
    return -(p * p.log()).sum((1, 2)) + z.shape[1] * (mean * mean.log()).sum()


def test_the_penalty_and_its_gradients_do_not_depend_on_the_chunks(float64, monkeypatch):
    monkeypatch.setattr(entropy, "_PROBABILITIES", 40)  # five vectors
    z = torch.randn(3, 7, 2, requires_grad=True)
    codes = torch.randn(8, 2, requires_grad=True)
    found = EntropyPenalty(temperature=0.7)(z, codes, across_ranks=False)
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
    certain_and_even = EntropyPenalty(temperature=1e-3)(codes.unsqueeze(0), codes, across_ranks=False)
    torch.testing.assert_close(certain_and_even, torch.tensor([-4 * math.log(4.0)]))
    collapsed = EntropyPenalty(temperature=1e-3)(codes[:1].repeat(1, 5, 1), codes, across_ranks=False)
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


def test_the_entropy_of_signs_is_that_of_all_their_codes(float64):
    z = torch.randn(1, 1, 3)
    codes = LFQ(3).vectors(torch.arange(8)).double()
    p = torch.softmax(-(z[0] - codes).square().sum(1) / 0.9, 0)
    mean_is_itself = sign_entropy(z, 0.9, across_ranks=False)  # one vector: the entropies are equal
    torch.testing.assert_close(mean_is_itself, torch.zeros(1))
    two = torch.cat([z, z.flip(2)])
    each = -(p * p.log()).sum()
    got = sign_entropy(two, 0.9, across_ranks=False)
    q = torch.sigmoid(4 * two / 0.9).mean((0, 1))
    bound = -(q * q.log() + (1 - q) * (1 - q).log()).sum()
    torch.testing.assert_close(got[0], each - bound)
    assert (got[0] <= direct(two, codes, 0.9)[0] + 1e-12).all()  # the entropy of the mean is bounded from above


def test_saturated_signs_have_finite_gradients():
    z = torch.tensor([[[1e6, -1e6, 0.0]]], requires_grad=True)
    sign_entropy(z, 0.01, across_ranks=False).sum().backward()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("given", [{"weight": -1.0}, {"temperature": 0.0}])
def test_errors_say_what_to_set(given):
    with pytest.raises(ValueError, match=r"EntropyPenalty: weight \(=.*temperature \(=.*\) positive\. Set model.*entr"):
        EntropyPenalty(**given)
