"""Two ranks of half a batch each train a VQ-VAE as one process does on the whole one."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lit_vae.images import Batch
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models import VQVAE
from lit_vae.networks import VQVAEDecoder, VQVAEEncoder
from lit_vae.quantizers import EMACodebook, EntropyPenalty, GradientCodebook, KMeans, Revival, VectorQuantizer

STEPS, BATCH = 9, 12


class Loss(nn.Module):
    """The training loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        y = torch.full((len(x),), -1)
        return self.model.step(Batch(x, y), 0, None).terms["loss"].mean()


def new_model(codebook: str) -> VQVAE:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(
        16,
        4,
        codebook=partial(EMACodebook if codebook == "EMA" else GradientCodebook, decay=0.5),
        start=KMeans(batches=2, iterations=3),
        revival=Revival(threshold=0.5, every_n_steps=2),
        entropy=None if codebook == "EMA" else EntropyPenalty(),
    )
    network = {"width": 8, "residual_width": 4, "blocks": 1}
    return VQVAE(
        [1, 8, 8],
        [2, 2],
        quantizer,
        partial(VQVAEEncoder, **network),
        partial(VQVAEDecoder, **network),
        LearnedGaussian(initial_variance=0.1),
        partial(torch.optim.Adam, lr=3e-3),
    )


def train(codebook: str, rank: int, ranks: int) -> dict[str, Tensor]:
    """Every weight and every state of the codebook, after each step."""
    model = new_model(codebook)
    loss: nn.Module = Loss(model) if ranks == 1 else DistributedDataParallel(Loss(model))
    optimizer = model.configure_optimizers()
    generator = torch.Generator().manual_seed(1)
    found = {}
    for step in range(STEPS):
        x = torch.rand(BATCH, 1, 8, 8, generator=generator) * 2 - 1
        optimizer.zero_grad()
        loss(x.chunk(ranks)[rank]).backward()
        optimizer.step()
        found |= {f"{step} {name}": value.detach().clone() for name, value in model.state_dict().items()}
    return found


def work(rank: int, codebook: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(train(codebook, rank, 2), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
@pytest.mark.parametrize("codebook", ["EMA", "Gradient"])
def test_two_ranks_train_as_one_process_does(codebook: str, tmp_path: Path) -> None:
    mp.start_processes(work, args=(codebook, str(tmp_path)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = train(codebook, 0, 1)
    assert first.keys() == second.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")
    last = f"{STEPS - 1} quantizers.0."
    assert expected[f"{last}step"] == STEPS
    assert expected[f"{last}revivals"] > 0
    assert not torch.equal(expected[f"{last}codebook.weight"], expected["0 quantizers.0.codebook.weight"])
