"""Moments of latents against numpy, against draws, and over two ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_vae.distributions import DiagonalGaussian
from lit_vae.metrics import LatentChannels
from lit_vae.noise import Draws

SHAPES = [(3, 4, 5), (6,)]


def posteriors(shape, number=23, seed=0):
    """Means far from zero, so that sums of squares would lose digits, and variances of each size."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = torch.randn(2, number, *shape, generator=generator, dtype=torch.float64)
    return 1e4 + mean, log_var


def moments(mean, log_var=None, sizes=(7, 1, 15)):
    metric = LatentChannels()
    for part in torch.arange(len(mean)).split(list(sizes)):
        metric.update(mean[part] if log_var is None else DiagonalGaussian(mean[part], log_var[part]))
    return metric.compute()


@pytest.mark.parametrize("shape", SHAPES)
def test_latents_against_numpy_over_uneven_batches(shape):
    z, _ = posteriors(shape)
    found, values = moments(z), z.numpy()
    axes = (0, *range(2, values.ndim))
    np.testing.assert_allclose(found.mean, values.mean(axes), rtol=1e-14)
    np.testing.assert_allclose(found.std, values.std(axes), rtol=1e-9)
    np.testing.assert_allclose(found.shift, values.mean(), rtol=1e-14)
    np.testing.assert_allclose(found.total_std, values.std(), rtol=1e-9)
    assert found.num_images == 23
    report = found.report()
    assert report["mean"] == found.mean.tolist()
    assert report["std"] == found.std.tolist()
    scaled = (values - report["shift_factor"]) * report["scale_factor"]  # what a diffusion model is trained on
    assert abs(scaled.mean()) < 1e-9
    assert scaled.var() == pytest.approx(1.0, rel=1e-9)


def test_a_report_of_one_channel_is_a_list_like_any_other():
    z, _ = posteriors((1, 4, 5))
    report = moments(z).report()
    np.testing.assert_allclose(report["mean"], [z.numpy().mean()], rtol=1e-12)
    np.testing.assert_allclose(report["std"], [z.numpy().std()], rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_posteriors_against_draws(shape):
    mean, log_var = posteriors(shape)
    found = moments(mean, log_var)
    draws = DiagonalGaussian(mean, log_var).rsample(1000, Draws(1, 0, torch.arange(len(mean)))).flatten(0, 1).numpy()
    axes = (0, *range(2, draws.ndim))
    # 23 000 draws at each place: their mean and std are within 4 standard errors
    np.testing.assert_allclose(found.mean, draws.mean(axes), atol=0.05)
    np.testing.assert_allclose(found.std, draws.std(axes), rtol=0.03)
    np.testing.assert_allclose(found.total_std, draws.std(), rtol=0.02)
    assert (found.std > 1.1 * moments(mean).std).all()  # a posterior's mean is not the latent


def test_the_law_of_total_variance():
    mean, log_var = posteriors((3, 4, 5))
    expected = mean.numpy().var((0, 2, 3)) + log_var.exp().numpy().mean((0, 2, 3))
    np.testing.assert_allclose(moments(mean, log_var).std.square(), expected, rtol=1e-9)
    scalar = LatentChannels()
    scalar.update(DiagonalGaussian(mean, torch.tensor(0.5)))  # one variance of all values
    np.testing.assert_allclose(scalar.compute().std.square(), mean.numpy().var((0, 2, 3)) + np.exp(0.5), rtol=1e-9)


def test_half_precision_is_summed_in_double():
    z = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = moments(z, sizes=(32, 32))
    np.testing.assert_allclose(found.std, z.double().numpy().std((0, 2, 3)), rtol=1e-12)


def test_latents_that_are_all_the_same_have_no_scale():
    report = moments(torch.zeros(4, 2), sizes=(2, 2)).report()
    assert (report["shift_factor"], report["scale_factor"]) == (0.0, float("inf"))


def test_no_latents_are_an_error():
    metric = LatentChannels()
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(ValueError, match=r"LatentChannels: compute was called before any update. Give it latents"),
    ):
        metric.compute()


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mean, log_var = posteriors((3, 4, 5))
    mine = slice(0, 9) if rank == 0 else slice(9, 23)
    found = moments(mean[mine], log_var[mine], (4, 5) if rank == 0 else (2, 11, 1))
    torch.save({k: torch.as_tensor(v) for k, v in found._asdict().items()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_are_one_process(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    expected = moments(*posteriors((3, 4, 5)))
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected._asdict().items():
            torch.testing.assert_close(got[name], torch.as_tensor(value), rtol=1e-9, atol=0, msg=name)
