"""Two ranks, each with half of a batch, take the step that one process takes with all of it."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from lit_vae.quantizers import (
    LFQ,
    EMACodebook,
    EntropyPenalty,
    GradientCodebook,
    KMeans,
    Revival,
    VectorQuantizer,
    update_codebooks,
)
from lit_vae.quantizers.revival import draw_rows

STEPS = 6


def quantizers() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    revival = Revival(threshold=0.3, every_n_steps=1)
    return {
        "plain": VectorQuantizer(20, 3),
        "start": VectorQuantizer(20, 3, start=KMeans(batches=2)),
        "start on sphere": VectorQuantizer(20, 3, normalize=True, start=KMeans()),
        "revival": VectorQuantizer(40, 3, codebook=partial(EMACodebook, decay=0.5), start=KMeans(), revival=revival),
        "gradient": VectorQuantizer(40, 3, codebook=partial(GradientCodebook, decay=0.5), revival=revival),
        "entropy": VectorQuantizer(20, 3, entropy=EntropyPenalty(temperature=1.0)),
        "lookup-free": LFQ(3),
    }


def train(rank: int, world_size: int) -> dict[str, Tensor]:
    """State and encoder's gradients after some steps of this rank's part of each batch."""
    found = {}
    for name, quantizer in quantizers().items():
        gradients = []
        for step in range(STEPS):
            whole = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(step))
            z_e = whole.chunk(world_size)[rank].clone().requires_grad_()
            quantized = quantizer(z_e)
            (gradient,) = torch.autograd.grad(quantized.loss.mean(), z_e)
            update_codebooks([quantizer], [quantized])
            full = torch.zeros_like(whole)
            full.chunk(world_size)[rank].copy_(gradient / world_size)  # DDP averages
            if world_size > 1:
                dist.all_reduce(full)
            gradients.append(full)
        found[f"{name}: gradients"] = torch.stack(gradients)
        found |= {f"{name}: {key}": value for key, value in quantizer.state_dict().items()}
    return found


def all_reduces_of_a_step() -> list[int]:
    """How many numbers each holds, in a step with two codebooks and a quantizer without one."""
    levels = [VectorQuantizer(20, 3), VectorQuantizer(6, 3, codebook=GradientCodebook), LFQ(3, entropy_weight=0.0)]
    quantized, sizes = [level(torch.randn(2, 3, 4)) for level in levels], []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda tensor: (sizes.append(tensor.numel()), all_reduce(tensor))
    update_codebooks(levels, quantized)
    dist.all_reduce = all_reduce
    return sizes


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    models = quantizers()  # before there is a process group, as a command line does
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    uneven = torch.arange(7.0).unsqueeze(1).split([4, 3])[rank]
    found = train(rank, 2) | {"rows": draw_rows(uneven, 5, 3, 1)}
    assert all_reduces_of_a_step() == [20 + 20 * 3 + 6]
    if rank == 0:
        for name in ("plain", "entropy", "lookup-free"):  # a validation that the other rank takes no part in
            models[name].eval()(torch.randn(2, 3, 4))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_are_one_process_and_equal_bit_by_bit(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = train(0, 1) | {"rows": draw_rows(torch.arange(7.0).unsqueeze(1), 5, 3, 1)}
    assert first.keys() == expected.keys()
    assert expected["revival: revivals"] > 0
    assert expected["gradient: revivals"] > 0
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(
            first[name], value, rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
