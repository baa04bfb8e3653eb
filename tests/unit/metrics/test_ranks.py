"""Two ranks with uneven shares of the images compute what one process does."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lit_vae.distributions import DiagonalGaussian
from lit_vae.metrics import (
    DensityCoverage,
    FeatureStatistics,
    Frechet,
    ImageQualityMetric,
    Kernel,
    PosteriorStatistics,
    PrecisionRecall,
    frechet_distance,
)

N = 40


def compute(index: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything, of the images at ``index``."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, 1, 12, 12, generator=generator) * 2 - 1
    x_hat = (x + 0.3 * torch.rand(x.shape, generator=generator)).clamp(-1, 1)
    means, log_vars = torch.randn(2, N, 3, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(N, 3)
    latents, quality = PosteriorStatistics(), ImageQualityMetric(12, 12)
    real, fake, moments = FeatureStatistics(9, keep=True), FeatureStatistics(9, keep=True), FeatureStatistics(9)
    for batch in index.split(7):
        latents.update(DiagonalGaussian(means[batch], log_vars[batch]), DiagonalGaussian(zeros[batch], zeros[batch]))
        quality.update(x_hat[batch], x[batch], batch)
        real.update(x[batch, 0, :3, :3].flatten(1), batch)
        fake.update(x_hat[batch, 0, :3, :3].flatten(1), batch)
        moments.update(x[batch, 0, :3, :3].flatten(1))
    summary = latents.compute()._asdict()
    sets = zip(real.compute().without_each, fake.compute().without_each, strict=True)
    distances = {"without each": torch.stack([frechet_distance(*pair) for pair in sets])}
    distances |= {"of moments": Frechet()(moments.compute(), fake.compute())["fd"]}
    for distance in (Frechet(), Kernel(), PrecisionRecall(), DensityCoverage()):
        distances |= distance(real.compute(), fake.compute())
    return {k: torch.as_tensor(v) for k, v in summary.items()} | quality.compute() | distances


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mine = torch.arange(N)[rank::2] if rank == 0 else torch.arange(N)[rank::2].flip(0)
    mine = mine[:-3] if rank == 0 else torch.cat([mine, torch.arange(N)[::2][-3:]])  # 17 and 23
    torch.save(compute(mine), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_compute_what_one_process_does(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    expected = compute(torch.arange(N))
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                got[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )
