"""What is weighed on two ranks is what their code sends, and the arithmetic of clusters has the limits it should."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.slow
def test_gradients_and_statistics_of_codes_are_weighed(tmp_path: Path) -> None:
    """VQ-VAE on digits: every weight but the codebook in float32, and the counts and sums of its 32 codes of 8."""
    from benchmarks.experiment import build, on_fake_images
    from benchmarks.ranks import Case, train

    (measured,) = train(Case("vqvae/digits", 2, 2), [2], tmp_path)
    config = on_fake_images("vqvae/digits", 2, 2)
    model, _ = build(config)
    quantizer = config["model"]["init_args"]["quantizer"]["init_args"]
    assert measured.gradients == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    statistics = 4 * quantizer["num_embeddings"] * (1 + quantizer["embedding_dim"])
    assert measured.others == statistics
    assert measured.calls == 1


@pytest.mark.slow
def test_operations_are_counted(tmp_path: Path) -> None:
    """VAE on digits: two for each weight, image and pass of three; the first layer's input needs no gradient."""
    from benchmarks.experiment import build, on_fake_images
    from benchmarks.ranks import Case, train

    (measured,) = train(Case("vae/digits", 2, 2), [1], tmp_path, count_flops=True)
    model, _ = build(on_fake_images("vae/digits", 2, 2))
    weights = {name: p.numel() for name, p in model.named_parameters() if name.endswith("weight")}
    assert measured.flops == 2 * 2 * (3 * sum(weights.values()) - weights["encoder.layers.0.weight"])
    assert measured.gradients == measured.calls == 0


def test_efficiency() -> None:
    from benchmarks.scaling import CLUSTERS, Cluster, efficiency

    free = Cluster("", 8, bandwidth=float("inf"), latency=0.0)
    assert efficiency(free, 1e12, 10**9, 5) == 1.0
    slow = Cluster("", 8, bandwidth=1e9, latency=0.0, flops=1e12, least=0.0)
    # one second of work, gradients of 1 GiB once and three quarters through each link: one third of a second is exposed
    ring = 2.0 * 7.0 / 8.0 * 2**30 / 1e9
    assert efficiency(slow, 1e12, 2**30, 5) == pytest.approx(1.0 / (1.0 + ring - 2.0 / 3.0))
    # of few bytes the last bucket is all of them: nothing to hide it behind
    assert efficiency(slow, 1e12, 2**20, 0) == pytest.approx(1.0 / (1.0 + 2.0 * 7.0 / 8.0 * 2**20 / 1e9))
    late = slow._replace(bandwidth=float("inf"), latency=0.1)
    assert efficiency(late, 1e12, 2**20, 4) == pytest.approx(1.0 / (1.0 + 5 * 0.1 * 3.0))
    for cluster in CLUSTERS:
        assert efficiency(cluster, 1e12, 10**8, 2) > efficiency(cluster, 1e12, 10**9, 2)
        assert efficiency(cluster, 2e12, 10**9, 2) > efficiency(cluster, 1e12, 10**9, 2)
