"""Quantizers without a stored codebook, and projections to fewer dimensions."""

import itertools
import math

import pytest
import torch

from lit_vae.quantizers import FSQ, LFQ, Projected, VectorQuantizer

GRIDS = pytest.mark.parametrize("quantizer", [FSQ([5, 4, 3]), FSQ([8, 6, 5]), LFQ(6), LFQ(1)], ids=repr)


@GRIDS
def test_every_index_is_a_code_and_is_found_again(quantizer):
    indices = torch.arange(quantizer.num_embeddings).view(1, -1)
    codes = quantizer.lookup(indices)  # (1, d, K)
    assert codes.unique(dim=2).shape[2] == quantizer.num_embeddings
    z_e = codes
    if isinstance(quantizer, FSQ):  # the inverse of its bound, infinite for the outer levels
        levels = quantizer.levels.view(-1, 1)
        half, offset = 0.999 * (levels - 1) / 2, (1 - levels % 2) / 2
        z_e = torch.atanh(((codes * (levels // 2) + offset) / half).clamp(-1, 1)) - torch.atanh(offset / half)
    again = quantizer(z_e)
    assert torch.equal(again.indices, indices)
    assert torch.equal(again.z_q, codes)


@pytest.mark.parametrize("levels", [[5, 4, 3], [8, 6, 5], [7]])
def test_fsq_uses_every_level_and_no_other(levels):
    quantizer = FSQ(levels)
    line = torch.linspace(-8, 8, 1001)
    z_e = line.view(1, 1, -1).expand(1, len(levels), -1)
    quantized = quantizer(z_e)
    for channel, count in enumerate(levels):
        half = count // 2
        assert (quantized.z_q[0, channel].unique() * half).round().tolist() == list(range(-half, count - half))
    assert torch.equal(quantizer.lookup(quantized.indices), quantized.z_q)
    assert quantized.indices.min() == 0
    assert quantized.indices.max() == quantizer.num_embeddings - 1
    assert quantized.loss.tolist() == [0.0]
    assert quantized.terms == {}


def test_fsq_indices_are_digits_of_mixed_radix():
    quantizer = FSQ([5, 4, 3])
    digits = torch.tensor(list(itertools.product(range(5), range(4), range(3))))
    indices = digits @ torch.tensor([1, 5, 20])
    expected = (digits - torch.tensor([2, 2, 1])) / torch.tensor([2, 2, 1])
    assert torch.equal(quantizer.lookup(indices), expected)


def test_fsq_keeps_zero_and_passes_the_gradient_of_the_bound(float64):
    quantizer = FSQ([8, 5])
    assert quantizer.bound(torch.zeros(2)).abs().max() < 1e-15
    z_e = torch.randn(3, 2, requires_grad=True)
    gradient = torch.randn(3, 2)
    (got,) = torch.autograd.grad(quantizer(z_e).z_q, z_e, gradient)
    (wanted,) = torch.autograd.grad(quantizer.bound(z_e) / torch.tensor([4.0, 2.0]), z_e, gradient)
    torch.testing.assert_close(got, wanted)
    bound = quantizer.bound(z_e)
    assert ((quantizer(z_e).z_q * torch.tensor([4.0, 2.0]) - bound).abs() <= 0.5).all()


def test_fsq_is_the_listing_of_the_paper(float64):
    """Mentzer et al. 2023, app. A.1, with its 1e-3 and, in place of the inverse of tanh, its tan."""
    z = torch.linspace(-6, 6, 999)
    for level in range(3, 12):
        half = (level - 1) * (1 - 1e-3) / 2
        offset = 0.0 if level % 2 else 0.5
        listing = torch.tanh(z + math.tan(offset / half)) * half - offset
        ours = FSQ([level]).bound(z[:, None])[:, 0]
        torch.testing.assert_close(ours, listing, rtol=0, atol=1e-12 if level % 2 else 1e-3)
    outermost = FSQ([5, 8]).bound(torch.tensor([[40.0, 40.0], [-40.0, -40.0]]))
    torch.testing.assert_close(outermost, torch.tensor([[1.998, 2.9965], [-1.998, -3.9965]]), rtol=0, atol=1e-12)


def test_lfq_takes_signs_bits_and_the_commitment(float64):
    quantizer = LFQ(3, commitment_cost=0.5, entropy_weight=0.0)
    z_e = torch.tensor([[0.5, -2.0, 3.0], [0.0, 1.0, -1.0]], requires_grad=True)
    quantized = quantizer(z_e)
    assert quantized.z_q.tolist() == [[1, -1, 1], [-1, 1, -1]]
    assert quantized.indices.tolist() == [0b101, 0b010]
    assert quantized.terms["commitment"].tolist() == [0.25 + 1 + 4, 1]
    assert quantized.loss.tolist() == [2.625, 0.5]
    (gradient,) = torch.autograd.grad(quantized.z_q.sum(), z_e)
    assert torch.equal(gradient, torch.ones(2, 3))


def test_lfq_entropy_makes_bits_certain_and_even(float64):
    z = torch.tensor([[0.3], [0.2]], requires_grad=True)  # both 1: the mean is uneven
    LFQ(1, commitment_cost=0.0, entropy_weight=1.0)(z).loss.sum().backward()
    assert z.grad[1] > 0  # the less certain one is pushed to the other side
    certain = torch.tensor([[3.0], [-3.0]], requires_grad=True)
    assert LFQ(1)(certain).terms["entropy"].sum() < -1.3  # of at most 2 log 2


def test_projected_is_linear_quantizer_linear(float64):
    inner = VectorQuantizer(16, 2)
    quantizer = Projected(inner, 6).eval()
    z_e = torch.randn(3, 6, 4, 5, requires_grad=True)
    quantized = quantizer(z_e)
    low = torch.einsum("dc,bchw->bdhw", quantizer.down.weight, z_e) + quantizer.down.bias[:, None, None]
    expected = inner(low)
    assert torch.equal(quantized.indices, expected.indices)
    torch.testing.assert_close(quantized.loss, expected.loss)
    torch.testing.assert_close(quantizer.lookup(quantized.indices), quantized.z_q)
    (got,) = torch.autograd.grad(quantized.z_q.sum(), z_e)
    wanted = (quantizer.up.weight @ quantizer.down.weight).sum(0)
    torch.testing.assert_close(got, wanted[:, None, None].expand_as(got))
    assert (quantizer.num_embeddings, quantizer.embedding_dim) == (16, 6)
    assert quantizer.scalars() == inner.scalars()


def test_projected_under_autocast_has_the_dtype_of_its_input():
    quantizer = Projected(VectorQuantizer(16, 2), 6)
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(torch.randn(3, 6, 4))
    assert quantized.z_q.dtype == torch.float32
    assert quantized.loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FSQ([]), r"FSQ: levels \(=\[\]\) must be one for each channel.*Set model.init_args.quantizer.*LFQ"),
        (lambda: FSQ([8, 2]), r"FSQ: levels \(=2\) must be at least 3"),
        (lambda: FSQ([8] * 21), r"FSQ: .*at most 2\^24"),
        (lambda: LFQ(63), r"LFQ: embedding_dim \(=63\) must be at least 1 and at most 24\."),
        (lambda: LFQ(4, entropy_weight=-1.0), r"LFQ: .*entropy_weight \(=-1.0\) must be at least 0"),
        (lambda: LFQ(4, temperature=0.0), r"LFQ: .*temperature \(=0.0\) must be greater than 0\."),
        (lambda: Projected(LFQ(4), 8)(torch.zeros(2, 4)), r"Projected: z_e \(=\(2, 4\)\) must be .*\(=8\)"),
    ],
)
def test_errors_say_what_to_set(make, text):
    with pytest.raises(ValueError, match=text):
        make()
