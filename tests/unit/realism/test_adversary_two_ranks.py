"""Two ranks of half a batch each play the game as one process does on the whole one, lambda included."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from realism_helpers import images, new_autoencoder, new_realism
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lit_vae.realism import LeCAM
from lit_vae.schedules import LinearWarmup

STEPS, BATCH = 6, 8


class Loss(nn.Module):
    """The training loss as a forward pass, which is what DDP wraps; the posterior's mean stands for its samples."""

    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        model, y = self.model, torch.full((len(x),), -1)
        decoded = model.decode(model.encode(x, y).mean, y)
        distortion = -decoded.log_prob(x)
        found = model.realism(x, decoded.mean, distortion, model.likelihood.temperature, model.decoder.last_layer, step)
        weight = found.scalars.get("adaptive_weight", torch.zeros(()))
        return (distortion + found.terms["loss"]).mean() + found.other_loss, torch.as_tensor(weight).detach()


def train(rank: int, ranks: int) -> dict[str, Tensor]:
    """Weights and lambda after each step: the discriminator learns from step 2 on, the decoder feels it from 3."""
    torch.set_default_dtype(torch.float64)
    weight = LinearWarmup(steps=1, end=0.5, delay=2)
    model = new_autoencoder(new_realism(weight=weight, start_step=2, penalties=[LeCAM(decay=0.5)]))
    loss: nn.Module = Loss(model) if ranks == 1 else DistributedDataParallel(Loss(model))
    optimizer = model.configure_optimizers()
    found = {}
    for step in range(STEPS):
        x = images(BATCH, seed=step)
        optimizer.zero_grad()
        value, adaptive = loss(x.chunk(ranks)[rank], step)
        value.backward()
        if not model.realism.adversary.learns(step):
            model.realism.adversary.forget_idle_gradients()
        optimizer.step()
        found |= {f"{step} {name}": value.detach().clone() for name, value in model.state_dict().items()}
        found[f"{step} lambda"] = adaptive
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(train(rank, 2), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_are_one_process_with_the_double_batch(tmp_path):
    mp.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = train(0, 1)
    assert alone[f"{STEPS - 1} lambda"] > 0
    assert not torch.equal(
        alone["5 realism.adversary.discriminator.body.0.weight"],
        alone["1 realism.adversary.discriminator.body.0.weight"],
    )
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name].double(), value.double(), rtol=1e-6, atol=1e-7, msg=name)
