"""The nearest code, against brute force; and that no matrix of all vectors against all codes is ever made."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lit_vae.quantizers import EntropyPenalty, GradientCodebook, KMeans, VectorQuantizer, search
from lit_vae.quantizers.search import nearest_codes, sums_by_code


class LargestOutput(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives, forward and backward."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize(("n", "k", "d"), [(3000, 700, 5), (1, 1, 3), (5000, 3, 1), (300, 9000, 4)])
def test_the_chosen_code_is_nearest_up_to_rounding(n, k, d):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, d, generator=generator)
    codes = torch.randn(k, d, generator=generator)
    distances = torch.cdist(z.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    least, index = distances.min(1)
    found = nearest_codes(z, codes)
    chosen = distances.gather(1, found.unsqueeze(1)).squeeze(1)
    scale = z.double().norm(dim=1) * codes.double().norm(dim=1).max() + codes.double().square().sum(1).max()
    assert ((chosen - least) <= 8 * torch.finfo(torch.float32).eps * scale).all()
    assert (found != index).sum() <= 1e-3 * n
    assert torch.equal(nearest_codes(z.double(), codes.double()), index)


def test_the_first_of_equal_codes_is_taken_across_tiles(monkeypatch):
    monkeypatch.setitem(search._SCORES, "cpu", 1024)  # tiles of four codes
    codes = torch.eye(3).repeat(4, 1)
    assert torch.equal(nearest_codes(torch.eye(3), codes), torch.arange(3))
    assert nearest_codes(torch.eye(3), torch.cat([codes + 0.5, torch.eye(3)])).tolist() == [12, 13, 14]


def test_counts_and_sums_are_those_of_a_one_hot_product(float64):
    z, indices = torch.randn(50, 3), torch.randint(7, (50,))
    one_hot = torch.nn.functional.one_hot(indices, 7).double()
    counts, sums = sums_by_code(z, indices, 7)
    assert torch.equal(counts, one_hot.sum(0))
    torch.testing.assert_close(sums, one_hot.T @ z)


@pytest.mark.parametrize("codebook", [None, GradientCodebook])
@pytest.mark.parametrize("entropy", [None, EntropyPenalty()])
def test_memory_does_not_grow_with_vectors_times_codes(codebook, entropy):
    n, k = 2048, 4096
    options = {} if codebook is None else {"codebook": codebook}
    quantizer = VectorQuantizer(k, 2, start=KMeans(iterations=1), entropy=entropy, **options)
    with LargestOutput() as largest:
        quantized = quantizer(torch.randn(2, 2, n // 2, requires_grad=True))
        (quantized.loss.sum() + quantized.z_q.sum()).backward()
    assert largest.elements <= 2**19
    assert n * k == 2**23


def test_a_huge_codebook_is_tiled():
    with LargestOutput() as largest:
        nearest_codes(torch.randn(600, 2), torch.randn(65536, 2))
    assert largest.elements <= 2**19
