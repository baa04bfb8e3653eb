"""Drawing codes from logits."""

import math

import pytest
import torch

from lit_vae.sampling import CodeSampling

pytestmark = pytest.mark.usefixtures("float64")


def uniforms(n: int) -> torch.Tensor:
    return (torch.arange(n) + 0.5) / n


def frequencies(sampling: CodeSampling, logits: torch.Tensor, n: int = 100_000) -> torch.Tensor:
    codes = sampling.draw(logits.expand(n, -1), uniforms(n))
    return torch.bincount(codes, minlength=len(logits)) / n


def test_draws_have_the_probabilities_of_the_logits():
    logits = torch.randn(7)
    torch.testing.assert_close(frequencies(CodeSampling(), logits), logits.softmax(0), rtol=0, atol=2e-5)


def test_temperature_divides_the_logits():
    logits = torch.randn(7)
    torch.testing.assert_close(frequencies(CodeSampling(0.5), logits), (2 * logits).softmax(0), rtol=0, atol=2e-5)


def test_temperature_zero_takes_the_most_probable():
    logits = torch.randn(5, 9)
    torch.testing.assert_close(CodeSampling(0.0).draw(logits, uniforms(5)), logits.argmax(1))


def test_top_k_keeps_k_and_their_ratios():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    expected = torch.tensor([0.0, 4 / 7, 0.0, 3 / 7])
    torch.testing.assert_close(CodeSampling(top_k=2).probabilities(logits), expected)
    torch.testing.assert_close(CodeSampling(top_k=9).probabilities(logits), logits.exp())


@pytest.mark.parametrize("k", range(1, 7))
def test_top_k_keeps_exactly_k_of_equal_codes(k):
    """Of equal ones the first, as temperature 0 takes it; whatever the others are."""
    equal = CodeSampling(top_k=k).probabilities(torch.zeros(2, 6))
    assert torch.equal(equal, torch.tensor([1.0 / k] * k + [0.0] * (6 - k)).expand(2, 6))
    mixed = CodeSampling(top_k=k).probabilities(torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0, 0.0]))
    assert mixed.nonzero().flatten().tolist() == sorted([4, 1, 3, 0, 2, 5][:k])
    excluded = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf, 0.0])
    assert (CodeSampling(top_k=k).probabilities(excluded) > 0.0).sum() == min(k, 3)


def test_top_k_takes_the_first_of_many_equal_codes():
    """A sort of many is another algorithm than one of few."""
    kept = CodeSampling(top_k=100).probabilities(torch.zeros(5000)).nonzero().flatten()
    assert torch.equal(kept, torch.arange(100))


@pytest.mark.parametrize("top_p", [0.3, 0.5, 0.9])
def test_top_p_keeps_the_fewest_of_equal_codes(top_p):
    kept = CodeSampling(top_p=top_p).probabilities(torch.zeros(10)).nonzero().flatten()
    assert torch.equal(kept, torch.arange(round(10 * top_p)))


@pytest.mark.parametrize(("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])])
def test_top_p_keeps_the_fewest_codes_that_have_it(top_p, kept):
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3])
    expected = torch.zeros(4)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    torch.testing.assert_close(CodeSampling(top_p=top_p).probabilities(probabilities.log()), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_code_of_probability_zero_is_never_drawn(dtype):
    """Not at the ends of the uniforms either, and whatever the sum of the probabilities is rounded to."""
    logits = torch.full((3, 1000), -math.inf, dtype=dtype)
    logits[:, 1:-1] = torch.randn(998, dtype=dtype)
    u = torch.tensor([0.0, 1.0 - 2.0**-53, 0.5])
    codes = CodeSampling().draw(logits, u)
    assert codes.tolist()[0] == 1
    assert codes.max() <= 998


def test_half_precision_is_promoted():
    assert CodeSampling().probabilities(torch.zeros(4, dtype=torch.bfloat16)).dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -1.0}, r"temperature \(=-1.0\) must be at least 0"),
        ({"temperature": math.nan}, r"temperature \(=nan\) must be a finite number and at least 0"),
        ({"top_k": 0}, r"top_k \(=0\) must be at least 1"),
        ({"top_p": 0.0}, r"top_p \(=0.0\) must be greater than 0 and at most 1"),
        ({"top_p": 1.5, "top_k": 0}, r"top_k \(=0\) must be at least 1\.\nCodeSampling: top_p \(=1.5\) must be"),
    ],
)
def test_values_out_of_range_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        CodeSampling(**given)
