"""Numbers about latents against closed forms, numpy, scikit-learn and draws; in any batches and on two ranks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.fft import dctn
from sklearn.linear_model import Ridge
from torch import Generator, Tensor

from lit_vae.distributions import DiagonalGaussian
from lit_vae.intervals import GROUPS
from lit_vae.metrics import (
    LatentStructure,
    LatentStructureMetric,
    above_half_nyquist,
    cosine_basis,
    mean_by_frequency,
    total_correlation,
)
from lit_vae.metrics.latent_structure import RIDGE
from lit_vae.noise import Draws

N, CLASSES = 90, 3


def posteriors(shape: tuple[int, ...] = (2, 3, 4), n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated means far from zero whose labels a line tells in part, log-variances of each size, and labels."""
    generator, size = Generator().manual_seed(0), math.prod(shape)
    mean, log_var = torch.randn(2, n, size, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (n,), generator=generator)
    mean[:, :CLASSES] += 3.0 * torch.eye(CLASSES)[y]
    mean = 100.0 + mean @ torch.randn(size, size, generator=generator, dtype=torch.float64)
    return mean.view(n, *shape), (log_var + 1.0).view(n, *shape), y


def measured(
    mean: Tensor, log_var: Tensor | None, y: Tensor, index: Tensor | None = None, batch: int = 7
) -> LatentStructure:
    metric = LatentStructureMetric(tuple(mean.shape[1:]), CLASSES)
    index = torch.arange(len(mean)) if index is None else index
    for rows, places in zip(torch.arange(len(mean)).split(batch), index.split(batch), strict=True):
        q = mean[rows] if log_var is None else DiagonalGaussian(mean[rows], log_var[rows])
        metric.update(q, y[rows], places)
    return metric.compute()


def numbers_of(*given: Tensor | None) -> dict[str, float]:
    """The numbers of all images."""
    return {name: float(value.reshape(-1)[0]) for name, value in measured(*given).numbers.items()}  # type: ignore[arg-type]


def test_the_transform_is_that_of_scipy() -> None:
    x = posteriors()[0][0, 0]
    found = cosine_basis(3) @ x @ cosine_basis(4).T
    np.testing.assert_allclose(found, dctn(x.numpy(), norm="ortho"), rtol=1e-12)


def test_a_wave_is_above_half_nyquist_by_its_own_length() -> None:
    """With ten positions, the wave (3, 4) has exactly 1/4 cycle per position, by 3^2 + 4^2 = 5^2."""
    high = above_half_nyquist(10, 10)
    assert not high[3, 4]
    assert not high[0, 5]
    assert high[4, 4]
    assert high[1, 5]
    assert torch.equal(above_half_nyquist(10, 4), above_half_nyquist(4, 10).T)
    assert int(above_half_nyquist(4, 4).sum()) == 10


def test_white_noise_has_the_share_of_the_coefficients() -> None:
    zeros, y = torch.zeros(8, 3, 5, 6, dtype=torch.float64), torch.zeros(8, dtype=torch.int64)
    found = measured(zeros, zeros + torch.tensor([0.0, 1.0, -3.0]).view(3, 1, 1), y)
    share = float(above_half_nyquist(5, 6).double().mean())
    assert float(found.numbers["latent_high_frequency"]) == pytest.approx(share)
    assert float(found.numbers["latent_noise"]) == pytest.approx(1.0)
    assert float(found.numbers["latent_std_ratio"]) == pytest.approx(math.exp(2.0))
    torch.testing.assert_close(found.spectrum, torch.ones(5, 6, dtype=torch.float64))
    torch.testing.assert_close(mean_by_frequency(found.spectrum)[1], torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize(("wave", "share"), [((0, 1), 0.0), ((2, 2), 0.0), ((3, 1), 1.0), ((3, 3), 1.0)])
def test_a_wave_has_all_its_energy_at_its_frequency(wave: tuple[int, int], share: float) -> None:
    """Of a wave of variance 1 and white noise of variance v, v (share of coefficients) and the wave are above."""
    row, column = wave
    waves = cosine_basis(6)[row][:, None] * cosine_basis(6)[column] * 6.0  # mean square 1
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64).view(4, 1, 1, 1)
    y = torch.zeros(4, dtype=torch.int64)
    found = measured(7.0 + signs * waves, None, y)
    energy = torch.zeros(6, 6, dtype=torch.float64)
    energy[row, column] = 36.0
    torch.testing.assert_close(found.spectrum.reshape(6, 6), energy, atol=1e-9, rtol=0)
    assert float(found.numbers["latent_high_frequency"]) == pytest.approx(share, abs=1e-12)
    v, white = 0.5, float(above_half_nyquist(6, 6).double().mean())
    noisy = numbers_of(7.0 + signs * waves, torch.full((4, 1, 6, 6), math.log(v)), y)
    assert noisy["latent_high_frequency"] == pytest.approx((share + v * white) / (1.0 + v))
    assert noisy["latent_noise"] == pytest.approx(v / (1.0 + v))


def test_noise_of_any_variances_against_the_covariance_of_its_coefficients() -> None:
    mean, log_var, y = posteriors()
    found = measured(mean, log_var, y)
    transform = torch.kron(cosine_basis(3), cosine_basis(4))
    expected = []
    for channel in range(2):
        z, noise = mean[:, channel].flatten(1), log_var[:, channel].exp().flatten(1)
        variance = z.var(correction=0) + noise.mean()
        energy = ((z - z.mean()) @ transform.T).square().mean(0)
        expected.append((energy + (transform @ noise.mean(0).diag() @ transform.T).diag()) / variance)
        assert float(found.std[channel]) == pytest.approx(float(variance.sqrt()), rel=1e-9)
    torch.testing.assert_close(found.spectrum.flatten(), torch.stack(expected).mean(0), rtol=1e-9, atol=0)
    assert float(found.spectrum.mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(2, 3, 4), (24,), (1, 17, 17)])  # the last has too many dimensions for intervals
def test_the_probe_is_ridge_regression_on_half_of_the_images(shape: tuple[int, ...]) -> None:
    mean, log_var, y = posteriors(shape)
    found = measured(mean, log_var, y)
    scaled = ((mean - mean.mean()) / found.std.view(-1, *(1 for _ in shape[1:]))).flatten(1).numpy()

    def accuracy(kept: Tensor) -> float:
        fit, test = ((kept & (torch.arange(N) % 2 == half)).numpy() for half in range(2))
        ridge = Ridge(RIDGE * fit.sum()).fit(scaled[fit], np.eye(CLASSES)[y[fit]])
        return float((ridge.predict(scaled[test]).argmax(1) == y[test].numpy()).mean())

    values = found.numbers["latent_probe_accuracy"].reshape(-1)
    assert float(values[0]) == pytest.approx(accuracy(torch.ones(N, dtype=torch.bool)))
    assert 1.1 / CLASSES < float(values[0]) < 1.0
    assert len(values) == (1 if shape == (1, 17, 17) else 1 + GROUPS)


def test_the_total_correlation_against_a_closed_form_and_against_draws() -> None:
    """Means at the corners of a parallelogram have the covariance [[1, r], [r, 1]]; noise of variance v adds v I."""
    r, v = 0.6, 0.25
    root = torch.linalg.cholesky(torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64))
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) @ root.T
    y, log_var = torch.zeros(4, dtype=torch.int64), torch.full((4, 2), math.log(v), dtype=torch.float64)
    scale = torch.tensor([1.0, 50.0], dtype=torch.float64)  # units do not matter
    for noise, correlation in ((None, r), (log_var + 2.0 * scale.log(), r / (1.0 + v))):
        nats = numbers_of(3.0 + scale * corners, noise, y)["latent_gaussian_nats"]
        assert nats == pytest.approx(-0.5 * math.log(1.0 - correlation**2), rel=1e-9)
    mean, log_var, y = posteriors()
    draws = DiagonalGaussian(mean, log_var).rsample(1000, Draws(1, 0, torch.arange(N))).flatten(0, 1).flatten(1)
    of_draws = float(total_correlation(torch.cov(draws.T)))
    assert numbers_of(mean, log_var, y)["latent_gaussian_nats"] == pytest.approx(of_draws, rel=5e-3)


def test_without_noise_a_posterior_is_a_latent() -> None:
    mean, _, y = posteriors()
    assert numbers_of(mean, None, y) == pytest.approx(numbers_of(mean, torch.full_like(mean, -math.inf), y), abs=1e-9)
    assert numbers_of(mean, None, y)["latent_noise"] == 0.0


def test_numbers_do_not_depend_on_batches_and_have_replicates_without_each_group() -> None:
    mean, log_var, y = posteriors()
    found, other = (
        measured(mean, log_var, y),
        measured(mean.flip(0), log_var.flip(0), y.flip(0), torch.arange(N).flip(0), 64),
    )
    for name, value in found.numbers.items():
        torch.testing.assert_close(other.numbers[name], value, rtol=1e-9, atol=1e-9, msg=name)
    for group in (0, 7, 19):
        index = torch.arange(N)[torch.arange(N) % GROUPS != group]
        without = measured(mean[index], log_var[index], y[index], index)
        for name, value in without.numbers.items():
            assert len(value.reshape(-1)) == 1
            torch.testing.assert_close(found.numbers[name][1 + group], value.reshape(()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "num_classes", "missing"),
    [
        ((4, 16, 16), CLASSES, set()),
        ((2, 3, 4), 0, {"latent_probe_accuracy"}),
        ((24,), CLASSES, {"latent_high_frequency"}),
        ((5, 15, 15), CLASSES, {"latent_probe_accuracy", "latent_gaussian_nats"}),  # 1125 dimensions
    ],
)
def test_what_is_not_there_is_not_measured(shape: tuple[int, ...], num_classes: int, missing: set[str]) -> None:
    names = LatentStructureMetric(shape, num_classes).names
    assert set(LatentStructureMetric((2, 3, 4), CLASSES).names) - set(names) == missing
    metric = LatentStructureMetric(shape, num_classes)
    mean, _, y = posteriors((24,))
    metric.update(mean.repeat(1, 47)[:, : math.prod(shape)].view(N, *shape), y, torch.arange(N))
    enough = math.prod(shape) < N
    assert list(metric.compute().numbers) == [n for n in names if enough or n != "latent_gaussian_nats"]


def test_what_has_no_value_is_not_a_number() -> None:
    mean, log_var, y = posteriors()
    assert "latent_gaussian_nats" not in numbers_of(mean[:24], log_var[:24], y[:24])  # 24 images, 24 dimensions
    assert "latent_gaussian_nats" not in numbers_of(mean[:25], log_var[:25], y[:25])  # 23 without a group
    assert math.isfinite(numbers_of(mean[:27], log_var[:27], y[:27])["latent_gaussian_nats"])
    mean[:, 0] = 0.0  # a channel without scale
    found = numbers_of(mean, None, y)
    assert (found.pop("latent_std_ratio"), found.pop("latent_gaussian_nats")) == (math.inf, math.inf)
    assert all(map(math.isnan, found.values()))
    assert float(total_correlation(torch.ones(2, 2))) == math.inf


def work(rank: int, folder: str) -> None:
    """One rank has the images that the probe is fitted on, the other those that test it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mine = torch.arange(N)[rank::2][: N // 2 - rank]  # 45 and 44
    mean, log_var, y = posteriors()
    found = measured(mean[mine], log_var[mine], y[mine], mine, batch=11 - rank)
    torch.save({**found.numbers, "std": found.std, "spectrum": found.spectrum}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_are_one_process(tmp_path: Path) -> None:
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    mean, log_var, y = posteriors()
    one = measured(mean[:-1], log_var[:-1], y[:-1])
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in {**one.numbers, "std": one.std, "spectrum": one.spectrum}.items():
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9, msg=name)
