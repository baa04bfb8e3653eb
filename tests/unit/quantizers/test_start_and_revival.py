"""Codes from the data at the start, dead codes replaced; both a function of seed and step."""

import copy
from functools import partial

import pytest
import torch
from quantizer_helpers import trained

from lit_vae.quantizers import EMACodebook, GradientCodebook, KMeans, Revival, VectorQuantizer
from lit_vae.quantizers.revival import draw_rows

CODEBOOKS = pytest.mark.parametrize("codebook", [EMACodebook, GradientCodebook])


def clusters(seed=0, spread=0.01, batch=8):
    """Vectors ``(B, 2, 9)`` around the nine points of a grid, one of each for every image."""
    points = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)) * 2
    noise = torch.randn(batch, 9, 2, generator=torch.Generator().manual_seed(seed))
    return (points + spread * noise).mT


@CODEBOOKS
def test_k_means_starts_at_the_data(codebook):
    quantizer = VectorQuantizer(12, 2, codebook=codebook, start=KMeans())
    error = trained(quantizer, clusters()).terms["commitment"]
    assert (error < 9 * 0.5).all()  # a cluster or two merged, where random codes have about 100
    assert quantizer.codebook.counts.min() >= 0.99 - 1e-6


def test_k_means_is_a_fixed_point_of_lloyd(float64):
    z = torch.randn(100, 2)
    codes = KMeans(iterations=100)(z, 5, 0, normalize=False)
    nearest = torch.cdist(z, codes).argmin(1)
    torch.testing.assert_close(codes, torch.stack([z[nearest == k].mean(0) for k in range(5)]))
    on_sphere = KMeans()(torch.nn.functional.normalize(z, dim=1), 5, 0, normalize=True)
    torch.testing.assert_close(on_sphere.norm(dim=1), torch.ones(5))


def test_no_iterations_takes_distinct_vectors_and_repeats_them_where_there_are_too_few():
    z = torch.arange(5.0).unsqueeze(1)
    assert sorted(KMeans(iterations=0)(z, 5, 0, normalize=False).flatten().tolist()) == [0, 1, 2, 3, 4]
    twelve = KMeans(iterations=0)(z, 12, 0, normalize=False).flatten()
    assert twelve.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(twelve[:5], twelve[5:10])


def test_other_seeds_and_steps_draw_other_vectors():
    z = torch.arange(100.0).unsqueeze(1)
    draws = [tuple(draw_rows(z, 10, seed, step).flatten().tolist()) for seed in range(3) for step in range(3)]
    assert len(set(draws)) == 9
    assert draws[0] == tuple(draw_rows(z, 10, 0, 0).flatten().tolist())


def test_only_the_first_batches_start_the_codebook():
    quantizer = VectorQuantizer(9, 2, codebook=GradientCodebook, start=KMeans(batches=2))
    weights = []
    for step in range(4):
        trained(quantizer, clusters(step) + step)
        weights.append(quantizer.codebook.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert torch.equal(weights[2], weights[3])


@CODEBOOKS
def test_a_dead_code_becomes_a_vector_of_the_batch_and_stays_there(codebook):
    quantizer = VectorQuantizer(3, 2, codebook=codebook, revival=Revival(threshold=0.5, every_n_steps=1))
    start = torch.tensor([[0.0, 0.0], [1.0, 1.0], [50.0, 0.0]])
    quantizer.codebook.replace(torch.arange(3), start)
    quantizer.codebook.counts[2] = 0.4
    z_e = clusters()
    trained(quantizer, z_e)
    assert quantizer.scalars() == {"revivals": 1.0}
    revived = quantizer.codebook.weight[2].detach().clone()
    distance = (z_e.mT.reshape(-1, 2) - revived).norm(dim=1).min()
    if codebook is GradientCodebook:
        assert distance == 0.0
    assert revived.norm() < 10
    assert quantizer.codebook.counts[2] >= 0.99
    trained(quantizer, z_e)
    assert (quantizer.codebook.weight[2] - revived).norm() < 0.5
    assert quantizer.scalars() == {"revivals": 1.0}


def test_revival_waits_for_its_step_and_for_vectors():
    z = torch.arange(3.0).unsqueeze(1)
    counts = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    dead, vectors = Revival()(z, counts, 0)
    assert dead.tolist() == [0, 2, 3]
    assert sorted(vectors.flatten().tolist()) == [0.0, 1.0, 2.0]
    assert len(Revival()(z, torch.ones(5), 0)[0]) == 0

    quantizer = VectorQuantizer(5, 1, revival=Revival(every_n_steps=3))
    found = []
    for _ in range(7):
        quantizer.codebook.counts[4] = 0.0
        trained(quantizer, z)
        found.append(quantizer.scalars()["revivals"])
    assert found == [1, 1, 1, 2, 2, 2, 3]
    assert VectorQuantizer(5, 1).scalars() == {}


def test_a_resumed_run_is_exact_and_global_randomness_untouched():
    def new():
        codebook = partial(EMACodebook, decay=0.5)
        revival = Revival(threshold=0.9, every_n_steps=2)
        return VectorQuantizer(40, 2, codebook=codebook, start=KMeans(batches=2), revival=revival)

    torch.manual_seed(0)
    whole = new()
    random_state = torch.get_rng_state()
    for step in range(3):
        trained(whole, clusters(step))
    saved = copy.deepcopy(whole.state_dict())
    for step in range(3, 6):
        trained(whole, clusters(step, spread=1.0))
    assert torch.equal(torch.get_rng_state(), random_state)

    resumed = new()
    trained(resumed, clusters(7))  # has counted a step of its own, which loading undoes
    resumed.load_state_dict(saved)
    for step in range(3, 6):
        trained(resumed, clusters(step, spread=1.0))
    assert whole.scalars()["revivals"] > 0
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: KMeans(batches=0), r"KMeans: batches \(=0\) must be at least 1\."),
        (lambda: KMeans(iterations=-1), r"KMeans: iterations \(=-1\) must be at least 0\."),
        (lambda: Revival(threshold=1.0), r"Revival: threshold \(=1.0\) must be greater than 0 and less than 1\."),
        (lambda: Revival(every_n_steps=0), r"Revival: every_n_steps \(=0\) must be at least 1\."),
        (lambda: Revival(seed=-1), r"Revival: seed \(=-1\) must be at least 0\."),
    ],
)
def test_errors_say_what_to_set(make, text):
    with pytest.raises(ValueError, match=text):
        make()
