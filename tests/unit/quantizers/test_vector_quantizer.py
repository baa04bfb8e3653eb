"""The vector quantizer and its codebooks: losses, gradients, moving averages."""

from functools import partial

import numpy as np
import pytest
import torch
from quantizer_helpers import trained
from sklearn.cluster import KMeans as ReferenceKMeans
from torch import nn

from lit_vae.quantizers import EMACodebook, EntropyPenalty, GradientCodebook, Revival, RotationTrick, VectorQuantizer

CODEBOOKS = pytest.mark.parametrize("codebook", [EMACodebook, GradientCodebook])


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_codes_losses_and_shapes_by_hand(float64):
    quantizer = VectorQuantizer(2, 2, commitment_cost=0.5, codebook=GradientCodebook).eval()
    quantizer.codebook.weight.data = torch.tensor([[0.0, 0.0], [4.0, 2.0]])
    z_e = torch.tensor([[[[1.0, 3.0]], [[0.0, 3.0]]], [[[5.0, 0.0]], [[2.0, -1.0]]]])  # (2, 2, 1, 2): two images
    quantized = quantizer(z_e)
    assert quantized.indices.tolist() == [[[0, 1]], [[1, 0]]]
    assert quantized.z_q.tolist() == [[[[0, 4]], [[0, 2]]], [[[4, 0]], [[2, 0]]]]
    assert quantized.terms["commitment"].tolist() == [1 + 2, 1 + 1]
    assert quantized.terms["codebook"].tolist() == [3, 2]
    assert quantized.loss.tolist() == [1.5 * 3, 1.5 * 2]
    assert torch.equal(quantizer.lookup(quantized.indices), quantized.z_q)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("grid", [(), (5,), (3, 4)])
def test_z_q_is_the_lookup_of_the_indices_bit_by_bit(grid, normalize):
    quantizer = VectorQuantizer(8, 3, normalize=normalize, estimator=RotationTrick()).eval()
    quantized = quantizer(latents(2, 3, *grid))
    assert quantized.indices.shape == (2, *grid)
    assert torch.equal(quantized.z_q, quantizer.lookup(quantized.indices))


def test_on_the_sphere_the_nearest_code_has_the_greatest_cosine(float64):
    quantizer = VectorQuantizer(16, 4, normalize=True).eval()
    z_e = torch.randn(50, 4)
    cosine = nn.functional.cosine_similarity(z_e.unsqueeze(1), quantizer.codebook.weight, dim=2)
    quantized = quantizer(z_e)
    assert torch.equal(quantized.indices, cosine.argmax(1))
    torch.testing.assert_close(quantized.z_q.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(quantized.terms["commitment"], 2 - 2 * cosine.max(1).values)


@CODEBOOKS
def test_each_term_has_gradients_where_it_should_only(float64, codebook):
    quantizer = VectorQuantizer(5, 3, commitment_cost=0.3, codebook=codebook).eval()
    z_e = latents(4, 3, 6)
    quantized = quantizer(z_e)
    weight = quantizer.codebook.weight
    difference = (z_e - quantized.z_q).detach()

    def gradients(loss):
        inputs = [t for t in (z_e, weight) if t.requires_grad]
        found = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        return (*found, None)[:2]

    encoder, codes = gradients(quantized.terms["commitment"].sum())
    torch.testing.assert_close(encoder, 2 * difference)
    assert codes is None
    encoder, loss_codes = gradients(quantized.loss.sum())
    torch.testing.assert_close(encoder, 0.3 * 2 * difference)
    decoder = torch.randn(4, 3, 6)
    encoder, codes = gradients((quantized.z_q * decoder).sum())
    assert torch.equal(encoder, decoder)
    assert codes is None
    if codebook is GradientCodebook:
        encoder, codes = gradients(quantized.terms["codebook"].sum())
        assert encoder is None
        expected = torch.zeros(5, 3).index_add_(0, quantized.indices.flatten(), -2 * difference.mT.reshape(-1, 3))
        torch.testing.assert_close(codes, expected)
        torch.testing.assert_close(loss_codes, expected)
    else:
        assert not weight.requires_grad
        assert "codebook" not in quantized.terms


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_without_memory_a_step_is_one_of_lloyd(float64):
    quantizer = VectorQuantizer(6, 2, codebook=partial(EMACodebook, decay=0.0, epsilon=1e-300))
    z_e = torch.randn(40, 2, 5)
    vectors = z_e.mT.reshape(-1, 2)
    init = vectors[:6].clone()  # so that none is empty
    quantizer.codebook.replace(torch.arange(6), init)
    lloyd = ReferenceKMeans(6, init=init.numpy(), n_init=1, max_iter=1, algorithm="lloyd").fit(vectors.numpy())
    trained(quantizer, z_e)
    torch.testing.assert_close(quantizer.codebook.weight, torch.from_numpy(lloyd.cluster_centers_))


def test_a_code_that_nothing_chooses_stays_where_it_is(float64):
    """However long: smoothed by epsilon, its average would shrink to zero."""
    quantizer = VectorQuantizer(4, 2, codebook=partial(EMACodebook, decay=0.5, epsilon=1e-5))
    quantizer.codebook.replace(torch.arange(4), torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]]))
    before = quantizer.codebook.weight.clone()
    for _ in range(60):  # 0.5 ** 60 is far below epsilon
        trained(quantizer, 0.1 * torch.randn(8, 2, 3, 3))
    torch.testing.assert_close(quantizer.codebook.weight[1:], before[1:], rtol=0, atol=0)
    assert not torch.equal(quantizer.codebook.weight[0], before[0])
    trained(quantizer, torch.tensor([9.5, 0.5]).view(1, 2, 1, 1))  # and the average goes on once it is chosen again
    torch.testing.assert_close(quantizer.codebook.weight[1], torch.tensor([9.5, 0.5]), rtol=1e-3, atol=0)


def test_moving_averages_against_numpy(float64):
    k, g, eps = 7, 0.9, 1e-2
    quantizer = VectorQuantizer(k, 3, codebook=partial(EMACodebook, decay=g, epsilon=eps))
    e = quantizer.codebook.weight.numpy().copy()
    n, m = np.ones(k), e.copy()
    for seed in range(3):
        z_e = latents(2, 3, 4, 5, seed=seed)
        z = z_e.detach().permute(0, 2, 3, 1).reshape(-1, 3).numpy()
        one_hot = np.eye(k)[((z[:, None] - e) ** 2).sum(2).argmin(1)]
        n = g * n + (1 - g) * one_hot.sum(0)
        m = g * m + (1 - g) * one_hot.T @ z
        updated = m / ((n + eps) / (n.sum() + k * eps) * n.sum())[:, None]
        e = np.where(one_hot.any(0)[:, None], updated, e)
        trained(quantizer, z_e)
    np.testing.assert_allclose(quantizer.codebook.counts.numpy(), n, rtol=1e-12)
    np.testing.assert_allclose(quantizer.codebook.sums.numpy(), m, rtol=1e-12)
    np.testing.assert_allclose(quantizer.codebook.weight.numpy(), e, rtol=1e-12)
    assert quantizer.step == 3


def test_a_code_that_nothing_chooses_does_not_fly_away():
    quantizer = VectorQuantizer(3, 2)
    start = torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, 0.0]])
    quantizer.codebook.replace(torch.arange(3), start)
    for seed in range(200):
        trained(quantizer, latents(4, 2, 4, seed=seed))
    far = quantizer.codebook.weight[2]
    assert quantizer.codebook.counts[2] == pytest.approx(0.99**200, rel=1e-3)
    torch.testing.assert_close(far, start[2], rtol=1e-3, atol=0.0)


@CODEBOOKS
def test_evaluation_moves_nothing_and_training_moves_whatever_the_grad_mode(codebook):
    quantizer = VectorQuantizer(4, 2, codebook=codebook, revival=Revival(every_n_steps=1)).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(latents(3, 2, 4))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    quantizer.train()
    with torch.no_grad():
        trained(quantizer, latents(3, 2, 4))
    assert quantizer.step == 1
    assert not torch.equal(quantizer.codebook.counts, before["codebook.counts"])


@CODEBOOKS
def test_autocast_and_half_precision_outside_change_no_code(codebook):
    quantizer = VectorQuantizer(256, 8, codebook=codebook, entropy=EntropyPenalty()).eval()
    z_e = latents(16, 8, 8, 8).detach().bfloat16()
    expected = quantizer(z_e.float())
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(z_e.requires_grad_())
    assert torch.equal(quantized.indices, expected.indices)
    assert torch.equal(quantized.loss, expected.loss)
    assert quantized.z_q.dtype == torch.bfloat16
    quantized.z_q.sum().backward()
    assert torch.equal(z_e.grad, torch.ones_like(z_e))


def test_the_state_in_half_precision_is_refused():
    quantizer = VectorQuantizer(4, 2).to(torch.bfloat16)
    quantizer.eval()(latents(3, 2))
    with pytest.raises(ValueError, match=r"EMACodebook: its state \(=torch.bfloat16\) must be .*bf16-mixed"):
        quantizer.train()(latents(3, 2))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: VectorQuantizer(0, 4), r"VectorQuantizer: num_embeddings \(=0\) must be at least 1\."),
        (lambda: VectorQuantizer(4, 0), r"VectorQuantizer: embedding_dim \(=0\) must be at least 1\."),
        (lambda: VectorQuantizer(4, 4, -1.0), r"commitment_cost \(=-1.0\) must be at least 0\."),
        (lambda: EMACodebook(4, 4, decay=1.0), r"EMACodebook: decay \(=1.0\) must be at least 0 and less than 1\."),
        (
            lambda: GradientCodebook(4, 4, decay=-0.1),
            r"GradientCodebook: decay \(=-0.1\) must be at least 0",
        ),
        (lambda: EMACodebook(4, 4, epsilon=0.0), r"epsilon \(=0.0\) must be greater than 0\."),
        (lambda: VectorQuantizer(4, 4)(torch.zeros(2, 3, 5)), r"z_e \(=\(2, 3, 5\)\) must be .*\(=4\).*Projected"),
    ],
)
def test_errors_say_what_to_set(make, text):
    with pytest.raises(ValueError, match=text):
        make()
